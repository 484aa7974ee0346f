"""config.json of a run: config, seed, versions, commit, hardware and every start."""

import datetime
import fnmatch
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from majl_jax import console, formats
from majl_jax.atomic import write_text
from majl_jax.training.restore import complete_steps

# Keys of the config that change nothing in the numbers: a run may go on with other values.
FREE_KEYS = (
    "log_every_steps",
    "checkpoint_every_steps",
    "keep_last",
    "keep_best",
    "on_nonfinite",
)
# Of the group `evaluation`, whose other keys are free: they decide which checkpoint is handed over.
CHOOSING_KEYS = ("select_best", "average", "pretrained")
DATA_KEY = "data.directory"
# Fields that came later than runs which may still go on, and what they say for what was done before
# them; `ANY` where nothing was done that they could change.
ABSENT, ANY = "(absent)", object()
ADDED: Mapping[str, Any] = {
    "stages.*.start": "",
    "augmentation.semitones": ANY,
    "augmentation.match_levels": False,
    "augmentation.*": 0.0,
    "balance.method": "none",
    "balance.pitch_share": ANY,
    "chimera.*": ANY,
    "data.unlabelled": "",
    "data.without_target": "",
    "data.without_target_share": ANY,
    "locoformer.outputs": 1,
    "locoformer.*": ANY,
    "vqvae.*": ANY,
    "pseudo_labels.tolerance_cents": 50.0,
    "self_supervision.mask_padding": False,
}
_PACKAGES = ("majl_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_OWN_KEYS = (formats.KEY, "config", "seed", "data", "starts")
Contents = Mapping[str, Mapping[str, int | None]]
"""{data set: {split: checksum of its content, None where it is not known}}."""


# ---- config.json --------------------------------------------------------------------------------


class ConfigMismatchError(ValueError):
    """The workdir belongs to a run with another config."""


def write_manifest(
    workdir: str | os.PathLike,
    config: Any,
    *,
    seed: int,
    data: Contents | None = None,
    command: Sequence[str] | None = None,
    free_keys: Sequence[str] = FREE_KEYS,
) -> dict[str, Any]:
    """Write config.json: format, config, seed, data, versions, commit, hardware and every start of
    the run.

    What `check_manifest` refuses is refused.

    Args:
        workdir: folder of the run.
        config: a ConfigDict or mapping.
        seed: of the run.
        data: what the data sets of the run hold.
        command: that started it; None: that of this process.
        free_keys: keys of the config that may differ, by their last part.
    """
    path = pathlib.Path(workdir) / "config.json"
    plain, contents = (json.loads(json.dumps(_plain(said))) for said in (config, data or {}))
    start, old = _describe_start(command), _read_manifest(path)
    if old is not None:
        said = {"config": plain, "seed": seed, "data": contents}
        changed = _allowed_changes(path.parent, old, said, free_keys)
        if changed:
            start["changed"] = {key: [before, now] for key, before, now in changed}
        _say_differences(old["starts"][-1], start)
        contents = {**old.get("data", {}), **contents}
    starts = [*(old["starts"] if old else []), start]
    said = {formats.KEY: formats.RUN, "config": plain, "seed": seed, "data": contents}
    manifest = {**said, **(old or {}), **said, "starts": starts}
    if jax.process_index() == 0:
        write_text(path, json.dumps(manifest, indent=2) + "\n")
    return manifest


def check_manifest(
    workdir: str | os.PathLike,
    config: Any,
    *,
    seed: int,
    data: Contents | None = None,
    free_keys: Sequence[str] = FREE_KEYS,
) -> None:
    """Raise ConfigMismatchError where there is a config.json already with another config, seed or
    data, but for what changes nothing in what was learned (`_is_free`); it names what differs.

    Args:
        workdir: folder of the run, which need not be there.
        config: a ConfigDict or mapping.
        seed: of the run.
        data: what the data sets of the run hold.
        free_keys: keys of the config that may differ, by their last part.
    """
    path = pathlib.Path(workdir) / "config.json"
    said = {"config": _plain(config), "seed": seed, "data": _plain(data or {})}
    if (old := _read_manifest(path)) is not None:
        _allowed_changes(path.parent, old, json.loads(json.dumps(said)), free_keys)


def _allowed_changes(
    workdir: pathlib.Path, old: Mapping[str, Any], new: Mapping[str, Any], free_keys: Sequence[str]
) -> list[tuple[str, Any, Any]]:
    """What differs in two manifests and may; ConfigMismatchError where there is more."""
    before, now = ({**one["config"], "seed": one["seed"]} for one in (old, new))
    changed = _differences(before, now)
    refused = [one for one in changed if not _is_free(*one, workdir, free_keys)]
    moved = any(key == DATA_KEY for key, _, _ in changed)
    others = _other_contents(old.get("data", {}), new["data"], moved=moved)
    if refused or others:
        raise ConfigMismatchError(_refusal(workdir, refused, others))
    return changed


def _is_free(
    key: str, before: Any, now: Any, workdir: pathlib.Path, free_keys: Sequence[str]
) -> bool:
    """Whether a run may go on with another value: nothing that it has learned depends on it.

    `stages.NAME.steps` is looked at by the loop, `data.directory` by what lies there.
    """
    if before == ABSENT and _says_what_was_done(key, now):
        return True
    match key.split("."):
        case [*_, last] if last in free_keys or key == DATA_KEY:
            return True
        case ["stages", _, "steps"]:
            return True
        case ["stages", name, *_]:
            return not has_begun(workdir, name)
        case ["evaluation", field, *_]:
            return field not in CHOOSING_KEYS
        case ["run"]:  # a stage's randomness depends on its place, so stages may follow only
            return all(one == other for one, other in zip(before, now, strict=False))
    return False


def _says_what_was_done(key: str, now: Any) -> bool:
    """Whether a field that the run did not have yet says what it did without it."""
    for pattern, value in ADDED.items():
        if fnmatch.fnmatchcase(key, pattern):
            return value is ANY or now == value
    return False


def _other_contents(old: Contents, new: Contents, *, moved: bool) -> list[str]:
    """The data sets that do not hold what they held, in words.

    Where they were moved, what is not known of them counts as well.
    """
    if moved and not old:
        return ["what the data sets held was not noted when this run began"]
    found = []
    for name in sorted({*old, *new} if moved else {*old} & {*new}):
        for split, before in old.get(name, {}).items():
            now = new.get(name, {}).get(split)
            if name in new and None not in (before, now) and before != now:
                found.append(f"{name} ({split}): another content there than here")
            elif moved and name in new and None in (before, now):
                found.append(f"{name} ({split}): whether the content is the same is not known")
    return found


def _refusal(
    workdir: pathlib.Path, refused: Sequence[tuple[str, Any, Any]], others: Sequence[str]
) -> str:
    lines = [f"{key}: {before!r} there, {now!r} here" for key, before, now in refused]
    return "\n  ".join([f"{workdir} belongs to a run with another config:", *lines, *others]) + (
        "\nUse another --workdir, or the same config to go on with that run (more steps, moved"
        " data, evaluation, and all of a stage that has not begun may differ)"
    )


def _say_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """What may change the last digits of a run that goes on."""
    if before["versions"] != now["versions"]:
        console.say("this run goes on with other package versions: its last digits may differ")
    devices = [f"{one['hardware']['devices']} {one['hardware']['device']}" for one in (before, now)]
    if devices[0] != devices[1]:
        console.say(
            f"this run goes on on {devices[1]}, before it was {devices[0]}: its last digits may"
            " differ"
        )


def has_begun(workdir: pathlib.Path, stage: str) -> bool:
    """Whether a stage has learned something: a checkpoint, or the result of a complete one."""
    folder = workdir / stage
    return bool(complete_steps(folder / "checkpoints")) or (folder / "result.json").exists()


def mark(settings: Any) -> str:
    """Eight hexadecimal digits that tell settings of evaluations from others.

    The batch size changes nothing in their results, unless `valid_batches` counts the batches.
    """
    said = _plain(settings)
    if "valid_batches" not in said:
        said.pop("batch_size", None)
    return f"{zlib.crc32(json.dumps(said, sort_keys=True).encode()):08x}"


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
    if isinstance(old, dict) or isinstance(new, dict):
        # A group that is not there has none of the fields, which are told one by one.
        old, new = ({} if one == ABSENT else one for one in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in sorted({*old, *new}):
            where = f"{key}.{name}" if key else name
            found += _differences(old.get(name, ABSENT), new.get(name, ABSENT), where)
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
        "commit": commit(),
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


def commit() -> str | None:
    """The commit of the package, with `-dirty` if files differ; None outside a git checkout."""
    folder = pathlib.Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
