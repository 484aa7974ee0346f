"""`ultrastar`: a folder of songs for karaoke games, with the notes that are sung (UltraStar Deluxe,
Performous, Vocaluxe, ...).

Mixture and pitch only: the stems are unknown. A label is the pitch of a note, whole semitones
without glides or vibrato; its octave is not attested, because the games do not ask for it.
"""

import collections
import functools
import math
import pathlib
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32

from majl_jax.audio import files, libav
from majl_jax.datasets import alignment, song_text, source_files, splits
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.notes import SEMITONES_MIDI, midi_hz
from majl_jax.datasets.song_text import Sung
from majl_jax.datasets.track import BadTrack, Recording, Track, stack

STEMS = ("accompaniment", "voice")
AUDIO_TAGS = ("AUDIO", "MP3")  # in this order
PAST_THE_END_S = 1.0  # by at most so much a note may end after its song
MARGIN_S = 0.03  # by default so near to where the notes change a frame is no label
HEARD, WRITTEN = "heard", "written"
COPY = source_files.Copy(
    "UltraStar songs",
    "texts with the tag #BPM, in subfolders or not, beside the audio that they name",
    own=True,
)
NO_AUDIO = "no audio: the file that its tag #AUDIO or #MP3 names is not there"
SECOND_TEXT = "another text has notes for the same audio"
_ROUNDING_S = 1e-6  # a note that begins at a frame has it
_UNVOICED, _UNKNOWN = 0.0, -1.0  # in place of a pitch


def tracks(
    source: str | None,
    *,
    grid: Grid,
    seed: int = 0,
    octave: str = HEARD,
    margin_s: float = MARGIN_S,
) -> list[Track]:
    """The songs below `source`; of each artist all are in one split, which the seed draws.

    Args:
        source: the folder.
        grid: of audio and labels.
        seed: of the split.
        octave: "heard": notes are moved in octave and time to where the mixture has them;
            "written": none is moved; a number: all are moved by so many octaves.
        margin_s: frames that are nearer to where the notes change are no label.
    """
    moved = octaves_of(octave)
    if not 0 <= margin_s < np.inf:
        raise ValueError(f"margin_s is {margin_s}; expected 0 seconds or more")
    root = COPY.root(source)
    songs = {path: song_text.read(path) for path in find_texts(root)}
    songs = {path: lines for path, lines in songs.items() if lines.is_song}
    if not songs:
        raise COPY.nothing(root)
    names = {path: path.relative_to(root).as_posix() for path in songs}
    spelt: dict[str, str] = {}
    artists = {
        path: spelt.setdefault(_spelling(artist), artist)
        for path, lines in songs.items()
        for artist in [lines.tags.get("ARTIST", names[path])]
    }
    audio = {path: song_text.named_file(lines, *AUDIO_TAGS) for path, lines in songs.items()}
    first = {file: path for path, file in reversed(audio.items())}
    faults = {path: _fault(file, again=first[file] != path) for path, file in audio.items()}
    used = {names[path]: artists[path] for path, fault in faults.items() if not fault}
    drawn = splits.seeded_split_of_groups(used, seed=seed)
    return [
        Track(
            id=source_files.identity(names[path].removesuffix(path.suffix)),
            split=drawn.get(names[path], "train"),
            group=artists[path],
            paths=(path, *filter(None, [file])),
            seconds=source_files.about_seconds(file) if file else 0.0,
            load=functools.partial(load, path, file, octaves=moved, margin_s=margin_s, grid=grid),
            left_out=faults[path],
        )
        for path, file in audio.items()
    ]


def _spelling(artist: str) -> str:
    """The same for all spellings of an artist; the first one found stands for them."""
    return " ".join(unicodedata.normalize("NFC", artist).casefold().split())


def octaves_of(octave: str) -> int | None:
    """By how many octaves all notes are moved; None where they go to where they are heard."""
    if octave == HEARD:
        return None
    try:
        return 0 if octave == WRITTEN else int(octave)
    except ValueError:
        raise ValueError(
            f"octave is {octave!r}; expected {HEARD}, {WRITTEN}, or a number of octaves as -1"
        ) from None


def find_texts(root: pathlib.Path) -> list[pathlib.Path]:
    """The texts below a folder, in natural order."""
    found = (
        path
        for folder in source_files.find_folders(root)
        for path in source_files.visible(folder, "*")
        if path.suffix.lower() == ".txt" and path.is_file()
    )
    # Without suffixes, which would put "song (duet)" before "song".
    return sorted(
        found,
        key=lambda path: source_files.natural_key(
            path.relative_to(root).with_suffix("").as_posix()
        ),
    )


def _fault(file: pathlib.Path | None, *, again: bool) -> str:
    """Why a song is left out, if so; again: a text before it names the same audio."""
    if file is None:
        return NO_AUDIO
    return libav.lacking(file) or SECOND_TEXT * again


def load(
    text: pathlib.Path,
    file: pathlib.Path | None,
    *,
    octaves: int | None,
    margin_s: float,
    grid: Grid,
) -> Recording:
    """The mixture of one song with the frame labels of its voice.

    Args:
        text: its notes.
        file: its audio.
        octaves: what the notes are moved by; None: they are moved to where they are heard.
        margin_s: frames that are nearer to where the notes change are no label.
        grid: of audio and labels.
    """
    if file is None or (fault := _fault(file, again=False)):
        raise BadTrack(f"{file or text}: {fault if file else NO_AUDIO}")
    lines = song_text.read(text)
    sung = song_text.notes(lines)
    mixture = source_files.read_audio(file, grid=grid)
    _check_times(sung, text, file, seconds=grid.seconds(len(mixture)))
    if octaves is None:
        sung, remarks = as_heard(sung, text, file)
    else:
        sung = [_moved(note, octaves, 0.0) for note in sung]
        remarks = (f"its notes are moved by {octaves} octaves",) * (octaves != 0)
    _check_pitches(sung, text)
    frames = grid.frame_count(len(mixture))
    f0_hz, has_pitch = np.zeros((frames, 2), np.float32), np.zeros((frames, 2), bool)
    f0_hz[:, 1], has_pitch[:, 1] = frames_of(sung, frames=frames, margin_s=margin_s, grid=grid)
    start_s, end_s = song_text.told_range_s(lines)
    times_s = grid.frame_times_s(frames)
    has_pitch[:, 1] &= (times_s >= start_s) & (times_s <= end_s)
    f0_hz[~has_pitch] = 0.0
    return Recording(
        audio=stack([mixture, np.zeros_like(mixture)], grid=grid),
        stems=STEMS,
        has_stems=np.zeros(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
        notes=(np.zeros((0, 3), np.float32), _rows(sung).astype(np.float32)),
        remarks=remarks,
    )


def as_heard(
    sung: Sequence[Sung], text: pathlib.Path, file: pathlib.Path
) -> tuple[list[Sung], tuple[str, ...]]:
    """The notes of each player in the octaves and at the times at which the audio has them, and
    what was done; BadTrack where they do not fit it.
    """
    audio = files.read(file, sample_rate_hz=alignment.RATE_HZ, channels=1)[0][:, 0]
    out, remarks = [note for note in sung if note.midi is None], []
    for player in sorted({note.player for note in sung}):
        notes = [note for note in sung if note.player == player and note.midi is not None]
        if not notes:
            continue
        heard = alignment.hear(audio, _rows(notes))
        if not heard.clear:
            raise BadTrack(
                f"{text}: only {heard.share:.0%} of the notes of player {player} are heard in one"
                f" octave of {file.name}, expected {alignment.LEAST_SHARE:.0%}: is it another"
                " version of the song? --octave=written, or a number, leaves that unasked"
            )
        out += [
            _moved(note, octave, heard.offset_s)
            for note, octave in zip(notes, heard.octaves.tolist(), strict=True)
        ]
        counts = collections.Counter(heard.octaves.tolist())
        moved = ", ".join(f"{octave:+d} ({count} notes)" for octave, count in counts.most_common())
        remarks.append(
            f"player {player}: octaves moved by {moved}, times by {heard.offset_s:+.2f} s;"
            f" {heard.share:.0%} of the notes are heard there"
        )
    return sorted(out, key=lambda note: note.onset_s), tuple(remarks)


def _moved(note: Sung, octaves: int, seconds: float) -> Sung:
    return note._replace(
        onset_s=max(note.onset_s + seconds, 0.0),
        offset_s=max(note.offset_s + seconds, 0.0),
        midi=None if note.midi is None else note.midi + 12 * octaves,
    )


def _rows(sung: Sequence[Sung]) -> Float[np.ndarray, "note 3"]:
    """Onset and offset in s and f0 in Hz of the notes that have a pitch."""
    rows = [(one.onset_s, one.offset_s, one.midi) for one in sung if one.midi is not None]
    notes = np.asarray(rows, np.float64).reshape(-1, 3)
    notes[:, 2] = midi_hz(notes[:, 2])
    return notes


def _check_times(
    sung: Sequence[Sung], text: pathlib.Path, file: pathlib.Path, *, seconds: float
) -> None:
    first, last = sung[0], max(sung, key=lambda note: note.offset_s)
    if not first.onset_s >= 0:
        raise BadTrack(
            f"{text}: its first note begins at {first.onset_s:.2f} s; expected 0 s or later: is GAP"
            " right?"
        )
    if last.offset_s > seconds + PAST_THE_END_S:
        raise BadTrack(
            f"{file}: {seconds:.1f} s long, but {text.name} has a note until {last.offset_s:.1f} s:"
            " is it cut off, or another version?"
        )


def _check_pitches(sung: Sequence[Sung], text: pathlib.Path) -> None:
    low, high = SEMITONES_MIDI
    for note in sung:
        if note.midi is not None and not low <= note.midi <= high:
            raise BadTrack(
                f"{text}: a note at {note.onset_s:.2f} s is {note.midi - song_text.MIDDLE_C_MIDI}"
                f" semitones from C4; expected a MIDI number from {low:g} to {high:g}: is the"
                " octave right?"
            )


def frames_of(
    sung: Sequence[Sung], *, frames: int, margin_s: float, grid: Grid
) -> tuple[Float32[np.ndarray, " frame"], Bool[np.ndarray, " frame"]]:
    """Frame labels (f0 in Hz with 0 = unvoiced, is it a label) of the notes.

    A frame is a label where, from `margin_s` before it to `margin_s` after, the notes say the same:
    one pitch, or none. Where a note is rap or freestyle, or two of unlike pitch sound, it is not.
    """
    import scipy.ndimage

    times_s = grid.frame_times_s(frames)
    said = np.full(frames, _UNVOICED)
    for note in sung:
        ends_s = np.array((note.onset_s, note.offset_s)) - _ROUNDING_S
        sounding = slice(*np.searchsorted(times_s, ends_s))
        pitch = _UNKNOWN if note.midi is None else float(note.midi)
        before = said[sounding]
        said[sounding] = np.where((before == _UNVOICED) | (before == pitch), pitch, _UNKNOWN)
    reach = math.ceil(margin_s * grid.sample_rate_hz / grid.hop_samples - _ROUNDING_S)
    width = 2 * reach + 1
    low = scipy.ndimage.minimum_filter1d(said, width, mode="nearest")
    known = (low == scipy.ndimage.maximum_filter1d(said, width, mode="nearest")) & (low >= 0)
    f0_hz = np.where(known & (said > 0), midi_hz(said), 0.0)
    return f0_hz.astype(np.float32), known
