"""`nsynth`: NSynth, 305,979 single notes of 1,006 instruments, 4 s each (Engel et al. 2017).

Mixture and pitch only. A note has its pitch while it is heard: while its envelope is at least a
tenth of its peak. Splits are the data set's own.
"""

import functools
import json
import pathlib

import numpy as np
from jaxtyping import Bool, Float

from majl_jax.datasets import notes, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import Recording, Track

STEMS = notes.MIXTURE
VOICES = 1
SPLITS = ("train", "valid", "test")
SECONDS = 4.0
RANGE_HZ = (20.0, 5000.0)  # of multi-pitch scores; others are left out, as by Cwitkowitz and Duan
LOWEST_CUTOFF_HZ = 27.5
WINDOW_S = 0.1
ENVELOPE_HZ = 30.0
ACTIVE = 0.1  # of the largest envelope
COPY = source_files.Copy(
    "NSynth",
    "nsynth-train/examples.json, nsynth-train/audio/NAME.wav (.flac) and the same for valid, test",
)
OUT_OF_RANGE = f"its pitch is not within {RANGE_HZ[0]:g} to {RANGE_HZ[1]:g} Hz"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The notes of the parts below `source` (any of train, valid and test)."""
    del seed
    folder = COPY.root(source)
    out = []
    for split in SPLITS:
        part = folder / f"nsynth-{split}"
        if not part.is_dir():
            continue
        for name, (midi, instrument) in read_examples(part / "examples.json").items():
            low, high = RANGE_HZ
            path = part / "audio" / f"{name}.wav"
            out.append(
                Track(
                    id=name,
                    split=split,
                    group=instrument,
                    paths=(path,),
                    seconds=SECONDS,
                    load=functools.partial(load, path, midi=midi, grid=grid),
                    left_out="" if low <= notes.midi_hz(float(midi)) <= high else OUT_OF_RANGE,
                )
            )
    if not out:
        raise COPY.nothing(folder)
    return out


def read_examples(path: pathlib.Path) -> dict[str, tuple[int, str]]:
    """(pitch in MIDI, instrument) of every note that a part lists, in order of names."""
    expected = 'expected {NAME: {"pitch": 60, "instrument_str": "..."}, ...}'
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; expected {COPY.tree}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        out = {
            name: (int(content[name]["pitch"]), str(content[name].get("instrument_str", "")))
            for name in sorted(content)
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: {type(error).__name__} {error}; {expected}: copy it again"
        ) from None
    if bad := [name for name, (midi, _) in out.items() if not 0 <= midi <= 127]:
        raise ValueError(f"{path}: {bad[0]} has the pitch {out[bad[0]][0]}; expected 0 to 127")
    return out


def load(path: pathlib.Path, *, midi: int, grid: Grid) -> Recording:
    """One note, labelled with its pitch while it is heard."""
    path = source_files.find_audio(path) or path
    audio = notes.read_mixture(path, grid=grid)
    heard = activity(audio[:, 0].mean(1), midi=midi, sample_rate_hz=grid.sample_rate_hz)
    frames = grid.frame_count(len(audio))
    note_hz = float(notes.midi_hz(float(midi)))
    f0_hz = np.where(heard[: frames * grid.hop_samples : grid.hop_samples], note_hz, 0.0)
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.zeros(1, bool),
        f0_hz=f0_hz.astype(np.float32)[:, None],
        has_pitch=np.ones((frames, VOICES), bool),
        grid=grid,
        voices=VOICES,
    )


def activity(
    audio: Float[np.ndarray, " time"], *, midi: int, sample_rate_hz: int
) -> Bool[np.ndarray, " time"]:
    """Where a note is heard: its envelope is at least a tenth of the largest, as in ss-mpe.

    The envelope is the RMS over 0.1 s after a high-pass at max(midi / 3, 27.5) Hz, smoothed by a
    low-pass at 30 Hz, both biquads with Q = 0.707 (that the cutoff is a third of the MIDI number,
    and not of the frequency, is in their code).
    """
    from scipy import ndimage, signal

    cutoff_hz = max(midi / 3, LOWEST_CUTOFF_HZ)
    rate_hz = sample_rate_hz
    clean = np.asarray(signal.lfilter(*_biquad("high", cutoff_hz, rate_hz), np.float64(audio)))
    window = round(WINDOW_S * sample_rate_hz)
    power = ndimage.uniform_filter1d(clean**2, window, mode="constant")
    rms = np.sqrt(np.maximum(power, 0.0))
    envelope = np.asarray(signal.lfilter(*_biquad("low", ENVELOPE_HZ, rate_hz), rms))
    largest = envelope.max(initial=0.0)
    return (envelope >= ACTIVE * largest) & (largest > 0)


def _biquad(kind: str, cutoff_hz: float, sample_rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of a second-order filter (Bristow-Johnson's audio EQ cookbook)."""
    angle = 2 * np.pi * cutoff_hz / sample_rate_hz
    cosine, alpha = np.cos(angle), np.sin(angle) / (2 * 0.707)
    if kind == "low":
        numerator = np.array([(1 - cosine) / 2, 1 - cosine, (1 - cosine) / 2])
    else:
        numerator = np.array([(1 + cosine) / 2, -1 - cosine, (1 + cosine) / 2])
    return numerator, np.array([1 + alpha, -2 * cosine, 1 - alpha])
