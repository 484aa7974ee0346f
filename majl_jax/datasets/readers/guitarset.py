"""`guitarset`: GuitarSet, 360 excerpts of solo guitar with the pitch of each string (Xi et al.
2018).

As SS-MPE uses it: all 360 are test, and the 60 of player 05 are valid as well (under names of
their own), to follow the training. So a checkpoint that is to be judged on test has to be picked
by another data set. None is train.
"""

import functools
import json
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float64

from majl_jax.datasets import source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import (
    BadTrack,
    Recording,
    Track,
    nearest_rows,
    stack,
)

STEMS = ("mixture",)
VOICES = 6  # the strings, the lowest first
VALID_PLAYER = "05"
GRID_S = 256 / 44100  # between the points of an annotation
HIGHEST_HZ = 5000.0
MEAN_S = 30.0
AUDIO, LABELS = "audio_mono-mic", "annotation"
COPY = source_files.Copy("GuitarSet", f"{LABELS}/NAME.jams and {AUDIO}/NAME_mic.wav")
NO_LABELS = f"no {LABELS}/NAME.jams"
NO_AUDIO = f"no {AUDIO}/NAME_mic.wav"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The excerpts below `source` that have both audio and annotation; the others are left out."""
    del seed
    root = COPY.root(source)
    labels = {path.stem: path for path in (root / LABELS).glob("[0-9]*.jams")}
    audio = {path.stem[: -len("_mic")]: path for path in (root / AUDIO).glob("[0-9]*_mic.wav")}
    if not labels and not audio:
        raise COPY.nothing(root)
    out = []
    for name in sorted(labels | audio):
        paths = audio.get(name), labels.get(name)
        player = name.split("_")[0]
        for split in ("valid", "test") if player == VALID_PLAYER else ("test",):
            out.append(
                Track(
                    id=name if split == "test" else f"{name}_valid",
                    split=split,
                    group=player,
                    paths=tuple(path for path in paths if path is not None),
                    seconds=MEAN_S,
                    load=functools.partial(load, *paths, grid=grid),
                    left_out=NO_LABELS if name not in labels else "" if name in audio else NO_AUDIO,
                )
            )
    return out


def load(
    audio_path: pathlib.Path | None, label_path: pathlib.Path | None, *, grid: Grid
) -> Recording:
    """One excerpt with the pitches of its six strings."""
    if audio_path is None or label_path is None:
        raise BadTrack(NO_AUDIO if audio_path is None else NO_LABELS)
    strings = read_labels(label_path)
    one = source_files.read_audio(audio_path, grid=grid)
    audio = stack([one], grid=grid)
    frames = grid.frame_count(len(audio))
    rows = nearest_rows(
        GRID_S * np.arange(len(strings)),
        name=str(label_path),
        frames=frames,
        grid=grid,
    )
    f0_hz = strings[rows].astype(np.float32)
    # No pitch is held beyond the end of the annotation.
    f0_hz[grid.frame_times_s(frames) > GRID_S * (len(strings) - 1)] = 0
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.zeros(1, bool),
        f0_hz=f0_hz,
        has_pitch=np.ones(f0_hz.shape, bool),
        grid=grid,
        voices=VOICES,
    )


def read_labels(path: pathlib.Path) -> Float64[np.ndarray, "row voice"]:
    """Pitches in Hz of the six strings, 0 = silent; row i is at i * 256 / 44100 s.

    The contour of a note begins anywhere: each point counts for the row nearest to it. Unvoiced
    points are no pitch.
    """
    expected = (
        f"expected a JAMS file with its duration and {VOICES} pitch_contour annotations, one per"
        " string, of points {time, value: {frequency, voiced}}"
    )
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        duration_s = float(content["file_metadata"]["duration"])
        contours = [one for one in content["annotations"] if one["namespace"] == "pitch_contour"]
        contours.sort(key=lambda one: int(one["annotation_metadata"]["data_source"]))
        points = [_points(one["data"]) for one in contours]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadTrack(f"{path}: not JSON ({error}); {expected}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise BadTrack(f"{path}: {type(error).__name__} {error}; {expected}") from None
    if len(points) != VOICES or not 0 < duration_s < np.inf:
        raise BadTrack(
            f"{path}: {len(points)} pitch_contour annotations, {duration_s:g} s long; {expected}"
        )
    f0_hz = np.zeros((int(np.ceil(duration_s / GRID_S)) + 1, VOICES))
    for string, rows in enumerate(points):
        if not ((rows >= 0) & (rows < [np.inf, HIGHEST_HZ])).all():
            raise BadTrack(
                f"{path}: string {string} has a time or frequency out of range; expected 0 to"
                f" {HIGHEST_HZ:g} Hz"
            )
        voiced = rows[rows[:, 1] > 0]
        nearest = np.round(voiced[:, 0] / GRID_S).astype(int)
        f0_hz[np.minimum(nearest, len(f0_hz) - 1), string] = voiced[:, 1]
    return f0_hz


def _points(data: Any) -> Float64[np.ndarray, "point 2"]:
    """Rows (time_s, f0_hz or 0) of a contour, stored as columns or as a list of points."""
    if isinstance(data, dict):
        pairs = list(zip(data["time"], data["value"], strict=True))
    else:
        pairs = [(point["time"], point["value"]) for point in data]
    rows = [(float(t), float(v["frequency"]) if v["voiced"] else 0.0) for t, v in pairs]
    return np.asarray(rows, np.float64).reshape(-1, 2)
