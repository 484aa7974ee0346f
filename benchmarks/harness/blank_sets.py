"""Data sets of noise in the place of those that a config names, so that its stages can be made."""

import pathlib
from typing import Any

import numpy as np

from majl_jax.datasets import builder, readers, records

# Parts of a config in whose texts data sets are named.
PARTS = ("data", "stages", "evaluation")


def write(config: Any, directory: pathlib.Path) -> None:
    """One record for each split of all sets that the config names, on its grid, with every label.

    Args:
        config: of a recipe.
        directory: gets a folder for each set.
    """
    for name in named(config):
        layout = layout_of(config, name)
        splits = {split: [_noise(layout)] for split in ("train", "valid", "test")}
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        builder.write_dataset(directory / name, splits, layout=layout, file_format="array_record")


def named(config: Any) -> list[str]:
    """The data sets among the words of a config, as `few/band`."""
    fields = config.to_dict()
    words = {word for part in PARTS for word in records.words(fields[part])}
    return sorted(word for word in words if word.rpartition("/")[2] in readers.READERS)


def layout_of(config: Any, name: str) -> records.Layout:
    """How the records of a set look when they are prepared for the config."""
    data, known = config.data, readers.READERS[name.rpartition("/")[2]]
    # Sound that is stretched needs more of it.
    hops = -(-2 * data.segment_samples // data.hop_samples)
    return records.Layout(
        known.stems,
        data.get("channels", 1),
        data.sample_rate_hz,
        data.hop_samples,
        hops * data.hop_samples,
        known.voices,
    )


def _noise(layout: records.Layout) -> records.Record:
    arrays = {name: np.ones(shape, dtype) for name, (shape, dtype) in layout.arrays().items()}
    rng, shape = np.random.default_rng(0), arrays["stems"].shape
    arrays["stems"] = rng.integers(-9999, 9999, shape, np.int16)
    return {**arrays, "track": "noise", "start_sample": 0, "valid_samples": len(arrays["stems"])}
