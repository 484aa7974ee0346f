"""What can be wrong with an audio file, as an error and as a warning."""


class AudioFileError(ValueError):
    """A file that cannot be used as audio; the message names the file, the fault and what to do."""


class AudioFileWarning(UserWarning):
    """A file that can be used, with a reservation: silence, clipping, no end, other bytes."""


def reason(error: Exception) -> str:
    """What a library says, in one line."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".") or "unknown fault"
