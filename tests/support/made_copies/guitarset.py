"""Made-up copies of GuitarSet, by real encoders, in their layouts."""

import json
import pathlib
from typing import Any

import numpy as np
import soundfile

from majl_jax.datasets.readers import guitarset

FILE_RATE, SECONDS, POINT_S = 44100, 1.5, 256 / 44100
NAME = "00_BN1-129-Eb_comp"
# string, start, end, Hz: contours begin anywhere; two of them follow each other on a string.
NOTES = (
    (0, 0.1013, 0.6, 110.0),
    (0, 0.7021, 1.0, 123.5),
    (4, 0.3, 1.2007, 220.0),
    (5, 0.9, 1.3, 0.0),
)


def contour(string: int, *, sparse: bool) -> dict[str, Any]:
    """The annotation of a string; each note ends with an unvoiced point."""
    times_s, values = [], []
    for number, (of, start_s, end_s, f0_hz) in enumerate(NOTES):
        if of == string:
            at_s = np.arange(start_s, end_s, POINT_S)
            times_s += [*at_s, at_s[-1] + POINT_S]
            value = {"voiced": True, "index": number, "frequency": f0_hz}
            values += [*[value] * len(at_s), {**value, "voiced": False}]
    data: Any = {"time": times_s, "value": values}
    if sparse:
        data = [
            {"time": t, "duration": 0, "value": v} for t, v in zip(times_s, values, strict=True)
        ]
    metadata = {"data_source": str(string)}
    return {"namespace": "pitch_contour", "annotation_metadata": metadata, "data": data}


def content(sparse: bool = False) -> dict[str, Any]:
    contours = [contour(string, sparse=sparse) for string in (3, 1, 0, 2, 5, 4)]
    notes = {"namespace": "note_midi", "annotation_metadata": {"data_source": "0"}, "data": []}
    return {"file_metadata": {"duration": SECONDS}, "annotations": [notes, *contours]}


def write_excerpt(root: pathlib.Path, name: str = NAME, **options) -> None:
    for folder in (guitarset.AUDIO, guitarset.LABELS):
        (root / folder).mkdir(parents=True, exist_ok=True)
    times_s = np.arange(int(SECONDS * FILE_RATE)) / FILE_RATE
    sound = 0.1 * np.sin(2 * np.pi * 110 * times_s)
    soundfile.write(root / guitarset.AUDIO / f"{name}_mic.wav", sound, FILE_RATE)
    (root / guitarset.LABELS / f"{name}.jams").write_text(json.dumps(content(**options)))
