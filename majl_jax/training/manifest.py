"""config.json of a run: config, seed, versions, commit, hardware and every start."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from majl_jax import console, formats
from majl_jax.atomic import write_text

# Keys of the config that change nothing in the numbers: a run may go on with other values.
FREE_KEYS = ("log_every_steps", "checkpoint_every_steps", "keep_last", "keep_best")
_PACKAGES = ("majl_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_OWN_KEYS = (formats.KEY, "config", "seed", "starts")


# ---- config.json --------------------------------------------------------------------------------


class ConfigMismatchError(ValueError):
    """The workdir belongs to a run with another config."""


def write_manifest(
    workdir: str | os.PathLike,
    config: Any,
    *,
    seed: int,
    command: Sequence[str] | None = None,
    free_keys: Sequence[str] = FREE_KEYS,
) -> dict[str, Any]:
    """Write config.json: format, config, seed, versions, commit, hardware and every start of the
    run.

    If there is one already with another config or seed, that is an error that names the differing
    keys.

    Args:
        workdir: folder of the run.
        config: a ConfigDict or mapping.
        seed: of the run.
        command: that started it; None: that of this process.
        free_keys: keys of the config that may differ, by their last part.
    """
    path = pathlib.Path(workdir) / "config.json"
    plain = json.loads(json.dumps(_plain(config)))
    start = _describe_start(command)
    old = _read_manifest(path)
    if old is not None:
        changed = _differences({**old["config"], "seed": old["seed"]}, {**plain, "seed": seed})
        changed = [c for c in changed if c[0].rsplit(".", 1)[-1] not in free_keys]
        if changed:
            raise ConfigMismatchError(
                f"{path.parent} belongs to a run with another config:\n"
                + "\n".join(
                    f"  {key}: {before!r} there, {now!r} here" for key, before, now in changed
                )
                + "\nUse another --workdir, or the same config to go on with that run"
            )
        if old["starts"][-1]["versions"] != start["versions"]:
            console.say("this run goes on with other package versions: its last digits may differ")
    starts = [*(old["starts"] if old else []), start]
    said = {formats.KEY: formats.RUN, "config": plain, "seed": seed, "starts": starts}
    manifest = {**said, **(old or {}), **said}
    if jax.process_index() == 0:
        write_text(path, json.dumps(manifest, indent=2) + "\n")
    return manifest


def add_to_manifest(workdir: str | os.PathLike, key: str, value: Any) -> None:
    """Adds to config.json what a run finds out on its way, from the first process.

    Everything else there stays, and a mapping under the same key is added to: of its own keys only
    those in `value` are replaced. A folder without a manifest has none to add to, and is left
    alone.
    """
    if key in _OWN_KEYS:
        raise ValueError(f"{key!r} is written by write_manifest; expected another key")
    if jax.process_index() != 0:
        return
    path = pathlib.Path(workdir) / "config.json"
    manifest = _read_manifest(path)
    if manifest is None:
        return
    old, new = manifest.get(key), json.loads(json.dumps(_plain(value)))
    changed = {**old, **new} if isinstance(old, dict) and isinstance(new, dict) else new
    if key not in manifest or changed != old:
        write_text(path, json.dumps({**manifest, key: changed}, indent=2) + "\n")


def _read_manifest(path: pathlib.Path) -> dict[str, Any] | None:
    needs = ("config", "seed", "starts")
    return formats.read(path, formats.RUN, needs=needs) if path.exists() else None


def _plain(value: Any) -> Any:
    """Configs (ml_collections, dataclass-like mappings) as what JSON knows."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in sorted({*old, *new}):
            where = f"{key}.{name}" if key else name
            found += _differences(old.get(name, "(absent)"), new.get(name, "(absent)"), where)
        return found
    return [] if old == new else [(key, old, new)]


def _describe_start(command: Sequence[str] | None) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    device = jax.devices()[0]
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.orig_argv if command is None else command),
        "commit": _commit(),
        "versions": versions,
        "hardware": {
            "platform": device.platform,
            "device": device.device_kind,
            "devices": jax.device_count(),
            "processes": jax.process_count(),
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "system": platform.platform(),
        },
    }


def _commit() -> str | None:
    """The commit of the package, with `-dirty` if files differ; None outside a git checkout."""
    folder = pathlib.Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
