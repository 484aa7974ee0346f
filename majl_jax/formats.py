"""Files that are no code: where ours lie, and what a run writes down, JSON files whose format has
a number and files of JSON lines.

Who writes a file says which format it has, who reads one refuses a newer one. What is damaged is
refused by file and line. Scores that JSON has no numbers for are text or null.
"""

import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

RUN = 1
"""Of a run's config.json and <stage>/result.json."""
DATA = 1
"""Of a prepared data set's index.json."""
MODEL = 1
"""Of a model file's card."""
KEY = "format"

_PACKAGE = pathlib.Path(__file__).resolve().parent


def _folder(name: str, *, in_checkout: str) -> pathlib.Path:
    """A folder that setup.py puts into the package; a checkout has it beside."""
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / in_checkout


CONFIGS = _folder("configs", in_checkout="configs")
SPLITS = _folder("splits", in_checkout="data/splits")


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
    """A file is damaged, or was written by a newer version of the package."""


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


def read(
    path: pathlib.Path | epath.Path, known: int, *, needs: Sequence[str] = ()
) -> dict[str, Any]:
    """The JSON object in a file, of a format that is known, with the keys that it needs.

    Raises FormatError where it is not that, OSError where it cannot be read.
    """
    said = _object(path.read_bytes(), os.fspath(path))
    check(said, known, path)
    if lacking := [key for key in needs if key not in said]:
        raise FormatError(f"{path} has no {', '.join(map(repr, lacking))}: {_ADVICE}")
    return said


def read_lines(path: pathlib.Path, *, needs: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """The JSON objects in the lines of a file, each with the keys it needs; none if there is none.

    A last line without an end was cut off by a crash and is left out; FormatError where another
    one is not that.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        whole, where = number < len(lines), f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = _object(line, where)
            if lacking := [key for key in needs if key not in row]:
                raise FormatError(f"{where} has no {', '.join(map(repr, lacking))}: {_ADVICE}")
        except FormatError:
            if whole:
                raise
            return
        yield row


_ADVICE = "put back a copy of the file, or remove what is wrong in it"


def _object(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        fault = f"is not UTF-8 text (byte {error.start})"
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        fault = f"is not JSON ({error.msg}, {place})" if data.strip() else "is empty"
    else:
        if isinstance(found, dict):
            return found
        fault = f"holds {json.dumps(found)[:40]}, expected an object {{...}}"
    raise FormatError(f"{where} {fault}: {_ADVICE}")
