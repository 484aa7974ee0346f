"""Sound songs of three melodies as records, a doctor to look at them, and ways to spoil them."""

import functools
import pathlib

import numpy as np
from etils import epath

from majl_jax.audio import int16
from majl_jax.datasets import builder, records, track
from majl_jax.datasets.grid import Grid
from majl_jax.prepare import check
from majl_jax.prepare.check.findings import Finding

RATE_HZ, HOP = 8000, 80
STEMS = ("voice", "bass", "rest")
LAYOUT = records.Layout(STEMS, 1, RATE_HZ, HOP, record_samples=2 * RATE_HZ)
SECONDS = 3.5  # two records, of which the second overlaps the first


def music(seed: int, seconds: float = SECONDS) -> tuple[np.ndarray, np.ndarray]:
    """A melody of six partials over faint noise, float32 [time], and its f0, [frame]."""
    rng = np.random.default_rng(seed)
    samples = int(seconds * RATE_HZ)
    f0_hz = np.zeros(samples, np.float32)
    start = 0
    while start < samples:
        length = int(rng.uniform(0.12, 0.35) * RATE_HZ)
        f0_hz[start : start + length] = rng.choice([0.0, *rng.uniform(90, 500, 6)])
        start += length
    phase = 2 * np.pi * np.cumsum(f0_hz) / RATE_HZ
    tone = sum(np.sin(k * phase) / k for k in range(1, 7)) * (f0_hz > 0)
    audio = 0.1 * tone + 0.002 * rng.standard_normal(samples)
    return audio.astype(np.float32), f0_hz[::HOP][: samples // HOP]


def song(name: str, seed: int, seconds: float = SECONDS) -> records.Record:
    """A whole track of three melodies."""
    parts = [music(10 * seed + number, seconds) for number in range(len(STEMS))]
    f0_hz = np.stack([f0 for _, f0 in parts], axis=1)
    return {
        "stems": int16.from_float(np.stack([audio for audio, _ in parts], axis=1)[:, :, None]),
        "has_stems": np.ones(len(STEMS), bool),
        "f0_hz": f0_hz,
        "has_pitch": np.ones(f0_hz.shape, bool),
        "track": name,
        "start_sample": 0,
        "valid_samples": len(parts[0][0]),
    }


SPLITS = {"train": 6, "valid": 2, "test": 2}


@functools.cache
def made() -> dict[str, list[records.Record]]:
    numbers = iter(range(1, 60))
    return {
        split: [song(f"{split}_{place}", next(numbers)) for place in range(count)]
        for split, count in SPLITS.items()
    }


def songs() -> dict[str, list[records.Record]]:
    """Sound tracks, of every split some; arrays are to be replaced, not changed."""
    return {split: [dict(one) for one in found] for split, found in made().items()}


def cut(tracks: dict[str, list[records.Record]], layout: records.Layout = LAYOUT):
    return {
        split: [piece for one in found for piece in records.cut(one, layout)]
        for split, found in tracks.items()
    }


def write(folder: pathlib.Path, pieces, *, layout=LAYOUT, file_format="array_record", **kwargs):
    builder.write_dataset(folder, pieces, layout=layout, file_format=file_format, **kwargs)
    return folder


def look(*folders: pathlib.Path, processes: int = 1) -> check.Report:
    return check.check([epath.Path(folder) for folder in folders], processes=processes)


def names(report: check.Report) -> dict[str, Finding]:
    """The findings by name; a name in two splits would show as a longer list."""
    found = report.findings()
    assert len({one.name for one in found}) == len(found), found
    return {one.name: one for one in found}


def look_at_source(tracks: dict[str, list[records.Record]], **fields) -> check.Report:
    """The doctor's report of tracks that a reader would load."""
    listed = [
        track.Track(one["track"], split, functools.partial(as_recording, one), **fields)
        for split, found in tracks.items()
        for one in found
    ]
    source = check.Source(listed, LAYOUT, "made up")
    return check.check([], {"made": source})


def as_recording(one: records.Record) -> track.Recording:
    return track.Recording(
        audio=one["stems"].astype(np.float32) / 32768,
        stems=STEMS,
        has_stems=one["has_stems"],
        f0_hz=one["f0_hz"],
        has_pitch=one["has_pitch"],
        grid=Grid(RATE_HZ, HOP),
    )


def change(key: str, value):
    """Sets `key` of a track to `value`, or to what it gives for the old one."""

    def apply(one: records.Record) -> None:
        one[key] = value(one[key].copy()) if callable(value) else value

    return apply


def stems(edit):
    """Edits stems, float [time, stem, channel] in int16's scale."""

    def apply(one: records.Record) -> None:
        audio = one["stems"].astype(np.float64)
        edit(audio)
        one["stems"] = np.clip(np.round(audio), -32768, 32767).astype(np.int16)

    return apply


def labels(edit):
    """Edits f0_hz in place."""

    def apply(one: records.Record) -> None:
        one["f0_hz"] = one["f0_hz"].copy()
        edit(one["f0_hz"])

    return apply


def assign(index, value):
    def edit(array: np.ndarray) -> None:
        array[index] = value(array) if callable(value) else value

    return edit


def scaled(factor):
    def edit(array: np.ndarray) -> None:
        array *= factor

    return edit


def every(tracks: dict[str, list[records.Record]], *applied) -> None:
    for found in tracks.values():
        for one in found:
            for apply in applied:
                apply(one)
