"""Basic Pitch (Bittner et al. 2022) with its published weights, as a reference for multi-pitch
scores.

The weights lie in the package basic-pitch, which asks for an old TensorFlow; they run without it:

    pip install onnxruntime && pip install --no-deps basic-pitch==0.4.0
"""

import functools
import importlib.util
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float

SAMPLE_RATE_HZ = 22_050
HOP_SAMPLES = 256
WINDOW_SAMPLES = 2 * SAMPLE_RATE_HZ - HOP_SAMPLES
WINDOW_FRAMES = 172
TRIMMED_FRAMES = 15  # at each end of a window; windows overlap by twice as many hops
BINS = 264
BIN_HZ = 27.5 * 2.0 ** ((np.arange(BINS) - 1) / 36)
"""Centres of the contour bins, MIDI 21 + (b - 1) / 3: the middle one of three is the semitone."""
THRESHOLD = 0.3
WEIGHTS = "saved_models/icassp_2022/nmp.onnx"
INSTALL = "pip install onnxruntime && pip install --no-deps basic-pitch==0.4.0"
_KEPT_FRAMES = WINDOW_FRAMES - 2 * TRIMMED_FRAMES
_STEP_SAMPLES = WINDOW_SAMPLES - 2 * TRIMMED_FRAMES * HOP_SAMPLES


def weights_path() -> pathlib.Path:
    """Where the installed package has the ONNX model; the package is not imported.

    Raises ModuleNotFoundError, with the command that installs it.
    """
    found = importlib.util.find_spec("basic_pitch")
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (path := pathlib.Path(folder) / WEIGHTS).is_file():
            return path
    state = "is not installed" if found is None else f"has no {WEIGHTS}"
    raise ModuleNotFoundError(
        f"the package basic-pitch, which holds the weights of Basic Pitch, {state}; install it "
        f"without its TensorFlow: {INSTALL}"
    )


def frame_times_s(frames: int) -> Float[np.ndarray, "frame"]:
    """Times of the frames of the joined windows.

    Each window adds 142 frames but covers 36,164 samples, 188 less than 142 hops, so
    t = (36164 w + 256 i) / 22050 with w, i = divmod(frame, 142). The authors' code subtracts as
    much on average (10.3 ms per 172 frames).
    """
    window, frame = np.divmod(np.arange(frames), _KEPT_FRAMES)
    return (window * _STEP_SAMPLES + frame * HOP_SAMPLES) / SAMPLE_RATE_HZ


def contour(
    audio: Float[np.ndarray, "time"], *, batch_size: int = 8
) -> Float[np.ndarray, "frame bin"]:
    """Returns the contour posteriors of audio at 22,050 Hz for all frames before its end.

    Frames lie at `frame_times_s`, bins at `BIN_HZ`. Raises ModuleNotFoundError without the weights.
    """
    if audio.ndim != 1 or not len(audio):
        raise ValueError(f"audio has shape {audio.shape}; expected [time] with at least one sample")
    session = _session()
    count = -(-len(audio) // _STEP_SAMPLES)
    before = TRIMMED_FRAMES * HOP_SAMPLES
    padded = np.zeros(before + (count - 1) * _STEP_SAMPLES + WINDOW_SAMPLES, np.float32)
    padded[before : before + len(audio)] = audio
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::_STEP_SAMPLES]
    name, wanted = session.get_inputs()[0].name, _contour_output(session)
    parts = []
    for first in range(0, count, batch_size):
        batch = np.ascontiguousarray(windows[first : first + batch_size, :, None])
        out = np.asarray(session.run([wanted], {name: batch})[0])
        parts.append(out[:, TRIMMED_FRAMES:-TRIMMED_FRAMES].reshape(-1, BINS))
    joined = np.concatenate(parts)
    return joined[frame_times_s(len(joined)) < len(audio) / SAMPLE_RATE_HZ]


def transcribe(
    audio: Float[np.ndarray, "time"], *, threshold: float = THRESHOLD, batch_size: int = 8
) -> tuple[Float[np.ndarray, "frame"], list[np.ndarray]]:
    """Returns times in seconds and the pitches of each in Hz: peaks along the contour bins that
    reach the threshold.
    """
    from majl_jax.inference.decoding import pick_pitches, pitches_hz

    picked = pick_pitches(contour(audio, batch_size=batch_size), threshold=threshold)
    return frame_times_s(len(picked)), pitches_hz(picked, BIN_HZ)


@functools.cache
def _session() -> Any:
    """The loaded model."""
    path = weights_path()
    try:
        import onnxruntime  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"Basic Pitch needs onnxruntime, which is not installed; install it: {INSTALL}"
        ) from error
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def _contour_output(session: Any) -> str:
    """The one output with 264 bins."""
    found = [output.name for output in session.get_outputs() if output.shape[-1] == BINS]
    if len(found) != 1:
        shapes = {output.name: output.shape for output in session.get_outputs()}
        raise ValueError(
            f"{weights_path()} has outputs {shapes}; expected exactly one of {BINS} bins: install "
            "basic-pitch 0.4.0"
        )
    return found[0]
