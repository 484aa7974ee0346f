"""Sets and models that are used together: on one grid of samples and frames."""

from collections.abc import Mapping
from typing import Any


def check(grids: Mapping[str, Any]) -> None:
    """Raises a ValueError that names two of them unless all have the same rate and hop.

    Args:
        grids: layouts and models, which have `sample_rate_hz` and `hop_samples`, by their names.
    """
    said = {
        name: f"{one.sample_rate_hz} Hz, a hop of {one.hop_samples}" for name, one in grids.items()
    }
    first, *others = said
    for name in others:
        if said[name] != said[first]:
            raise ValueError(
                f"{first} has {said[first]}, {name} has {said[name]}: expected the same of both"
            )
