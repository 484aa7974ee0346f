"""Where a data set and the work on it lie."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

from etils import epath

from majl_jax.datasets import records
from majl_jax.prepare.selection import PrepareError


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a data set is to be, the local folder of the work on it, and where shards are written.

    loaded: the folder of loaded tracks: that of the work, or one on the data set's object store
        where Beam's workers load them.
    draft: None is beside the data set.
    lock: a local file that only one preparation of this data set holds, whatever its options.
    """

    directory: epath.Path
    work: pathlib.Path
    loaded: epath.Path
    draft: epath.Path | None
    lock: pathlib.Path


def find(
    wanted: Mapping[str, Any],
    output: records.Folder,
    work: records.Folder | None,
    *,
    by_beam: bool,
) -> Places:
    """The same places for the same options, so that a killed run is gone on with."""
    name, output = wanted["dataset"], epath.Path(output)
    local = records.is_local(output)
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    if work is None:
        work = output if local else pathlib.Path(tempfile.gettempdir()) / "majl_jax"
    lock = pathlib.Path(output) / f".{name}.lock"
    if not local:
        place = hashlib.sha256(os.fsencode(output)).hexdigest()[:8]
        lock = pathlib.Path(work) / f".{name}.lock-{place}"
    work = pathlib.Path(work) / f".{name}.work-{digest}"
    loaded = epath.Path(os.path.abspath(work))
    if by_beam and not local:
        loaded = output / work.name
    draft = None if local else epath.Path(work) / "shards"
    return Places(output / name, work, loaded, draft, lock)


def is_prepared(directory: epath.Path) -> bool:
    """Whether the data set is there in full; PrepareError where that cannot be told."""
    try:
        return records.is_prepared(directory)
    except Exception as error:  # TensorFlow's, fsspec's or a cloud's: they share no class
        raise PrepareError(f"{directory} cannot be reached: {error}") from error


def is_written(places: Places) -> bool:
    """Whether all but the way to its place is done."""
    return places.draft is not None and records.is_prepared(records.finished_in(places.draft))


def remove_work(places: Places) -> None:
    """Removes what is left of the work on a data set that is there."""
    shutil.rmtree(places.work, ignore_errors=True)
    with contextlib.suppress(OSError):
        places.lock.unlink()
    if not records.is_local(places.directory):  # also of a run with Beam that was broken off
        (places.directory.parent / places.work.name).rmtree(missing_ok=True)
