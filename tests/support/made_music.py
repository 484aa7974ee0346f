"""Small prepared data sets of synthetic tones: a voice of steady notes and rests over a low
drone.
"""

import dataclasses
import pathlib

import numpy as np

from majl_jax.audio import int16
from majl_jax.datasets import builder, records

HOP_SAMPLES, RATE_HZ = 320, 16_000
LAYOUT = records.Layout(
    stems=("soprano", "bass"),
    channels=1,
    sample_rate_hz=RATE_HZ,
    hop_samples=HOP_SAMPLES,
    record_samples=160 * HOP_SAMPLES,
)


MULTI_PITCH = dataclasses.replace(
    LAYOUT, sample_rate_hz=22_050, hop_samples=1024, record_samples=100 * 1024
)


def tones(
    name: str,
    *,
    frames: int = 160,
    layout: records.Layout = LAYOUT,
    has_stems: bool = True,
    has_pitch: bool = True,
):
    """A track of notes of 25 frames; what is not labelled is stored as the readers store it."""
    rng = np.random.default_rng(sum(name.encode()))
    notes_hz = 220.0 * 2.0 ** (rng.integers(0, 24, frames // 25 + 1) / 12)
    notes_hz[3::4] = 0.0  # rests
    f0_hz = np.repeat(notes_hz, 25)[:frames].astype(np.float32)
    phase = np.cumsum(np.repeat(f0_hz, layout.hop_samples)) / layout.sample_rate_hz
    voice = sum(np.sin(2 * np.pi * h * phase) / h for h in (1, 2, 3)) * 0.2
    voice = voice * np.repeat(f0_hz > 0, layout.hop_samples)
    drone = 0.2 * np.sin(2 * np.pi * 98.0 * np.arange(len(voice)) / layout.sample_rate_hz)
    stems = np.stack([voice, drone], axis=1)[:, :, None]
    if not has_stems:
        stems = np.concatenate([stems.sum(1, keepdims=True), 0 * stems[:, :1]], axis=1)
    both = np.stack([f0_hz, np.full(frames, 98.0, np.float32)], axis=1)
    return {
        "stems": int16.from_float(stems),
        "has_stems": np.full(2, has_stems),
        "f0_hz": both if has_pitch else 0 * both,
        "has_pitch": np.full((frames, 2), has_pitch),
        "track": name,
        "start_sample": 0,
        "valid_samples": len(stems),
    }


def prepare(directory: pathlib.Path) -> pathlib.Path:
    """The three views of the built-in data, made of tones: chorales, chorales_stems,
    chorales_pitch.
    """
    views = {
        "chorales": ({"train": ["a", "b"], "valid": ["c"], "test": ["d"]}, {}),
        "chorales_stems": ({"train": ["e"]}, {"has_pitch": False}),
        "chorales_pitch": ({"train": ["f"]}, {"has_stems": False}),
    }
    return _write(directory, views, LAYOUT)


def prepare_multi_pitch(directory: pathlib.Path) -> pathlib.Path:
    """What the small presets of configs/ss_mpe.py name: chorales, quartets, quartets_unlabelled,
    drums.
    """
    unlabelled = {"has_stems": False, "has_pitch": False}
    views = {
        "chorales": ({"train": ["a", "b"], "valid": ["c"], "test": ["d"]}, {}),
        "quartets": ({"valid": ["e"], "test": ["f"]}, {}),
        "quartets_unlabelled": ({"train": ["g"]}, unlabelled),
        "drums": ({"train": ["h"]}, unlabelled),
    }
    return _write(directory, views, MULTI_PITCH)


def _write(directory: pathlib.Path, views: dict, layout: records.Layout) -> pathlib.Path:
    for view, (splits, labels) in views.items():
        cut = {
            split: [
                record
                for name in names
                for record in records.cut(tones(name, layout=layout, **labels), layout)
            ]
            for split, names in splits.items()
        }
        builder.write_dataset(directory / view, cut, layout=layout)
    return directory


TRANSFER = {
    "chorales": ("soprano", "alto", "tenor", "bass"),
    "choir": ("female", "male"),
    "ensemble": ("flute", "trumpet", "guitar", "saxophone"),
}


def prepare_transfer(directory: pathlib.Path) -> pathlib.Path:
    """Stand-ins for the sets of configs/transfer.py:quickstart: tones in two stems, noise in
    two.
    """
    layout = dataclasses.replace(
        LAYOUT, sample_rate_hz=8000, hop_samples=128, record_samples=200 * 128
    )
    for name, stems in TRANSFER.items():
        full = dataclasses.replace(layout, stems=stems)
        splits = {}
        for split, names in {"train": "abcd", "valid": "e", "test": "f"}.items():
            made = [_with_noise(name + one, full) for one in names]
            splits[split] = (record for track in made for record in records.cut(track, full))
        builder.write_dataset(directory / name, splits, layout=full)
    return directory


def prepare_mixit(directory: pathlib.Path) -> pathlib.Path:
    """Stand-ins for the sets of configs/mixit.py:quickstart, the large one and the one with few
    songs.
    """
    layout = dataclasses.replace(
        LAYOUT,
        stems=("bass", "drums", "other"),
        sample_rate_hz=8000,
        hop_samples=128,
        record_samples=100 * 128,
    )
    for name, train in {"band": "abcd", "few/band": "ab"}.items():
        splits = {}
        for split, names in {"train": train, "valid": "e", "test": "f"}.items():
            made = [_with_noise(one, layout=layout) for one in names]
            splits[split] = (record for track in made for record in records.cut(track, layout))
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        builder.write_dataset(directory / name, splits, layout=layout)
    return directory


def prepare_jukebox(directory: pathlib.Path) -> pathlib.Path:
    """Stand-ins for the sets of configs/jukebox.py:quickstart: other music, and songs with
    stems.
    """
    layout = dataclasses.replace(
        LAYOUT, sample_rate_hz=8000, hop_samples=64, record_samples=200 * 64
    )
    songs = dataclasses.replace(layout, stems=("bass", "drums", "other"))
    for name, make, of in (("chorales", tones, layout), ("band", _with_noise, songs)):
        splits = {}
        for split, names in {"train": "abcd", "valid": "e", "test": "f"}.items():
            made = [make(one, layout=of) for one in names]
            splits[split] = (record for track in made for record in records.cut(track, of))
        builder.write_dataset(directory / name, splits, layout=of)
    return directory


def _with_noise(name: str, layout: records.Layout):
    """Tones in the first two stems, noise in the others."""
    track = tones(name, frames=250, layout=layout)
    rng = np.random.default_rng(sum(name.encode()))
    more = len(layout.stems) - 2
    noise = rng.normal(0, 1000, (len(track["stems"]), more, 1)).astype(np.int16)
    track["stems"] = np.concatenate([track["stems"], noise], axis=1)
    track["has_stems"] = np.full(len(layout.stems), True)
    for key in ("f0_hz", "has_pitch"):
        track[key] = np.repeat(track[key][:, :1], len(layout.stems), axis=1)
    return track
