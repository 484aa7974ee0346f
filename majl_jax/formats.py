"""Numbers of the formats on disk: who writes a file says which it has, who reads one refuses a
newer one. And how files have scores that JSON has no numbers for.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

RUN = 1
"""Of a run's config.json and <stage>/result.json."""
DATA = 1
"""Of a prepared data set's index.json."""
KEY = "format"


def score_to_json(value: float) -> float | str | None:
    """A score as files have it: "inf" and "-inf" as text, which JSON has no numbers for, and NaN,
    no score, as null.
    """
    if math.isinf(value):
        return str(value)
    return None if math.isnan(value) else value


def score_from_json(value: Any) -> Any:
    """The same score: null stays None, and what is no score as it is."""
    return float(value) if value in ("inf", "-inf") else value


class FormatError(ValueError):
    """A file was written by a newer version of the package."""


def check(said: Mapping[str, Any], known: int, path: str | os.PathLike) -> None:
    """Raises a FormatError where a file, which says `said`, has a higher number than is known.

    Without a number it has 0, the format of before there were numbers, which is read as 1 is.
    """
    found = said.get(KEY, 0)
    if not isinstance(found, int) or found > known:
        raise FormatError(
            f"{os.fspath(path)} has the format {found!r}, this version of majl_jax knows formats "
            f"up to {known}: use the version that wrote it, or a newer one"
        )
