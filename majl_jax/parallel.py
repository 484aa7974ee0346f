"""Devices and processes: the mesh, the sharded step, where arrays live, what processes agree on."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint import multihost

AXIS = "data"  # the name of the mesh axis that the batch is split over
_BARRIER_TIMEOUT_S = 24 * 3600  # process 0 may evaluate for hours while the others wait

T = TypeVar("T")
_barriers = 0


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    auto: bool = False,
) -> None:
    """Join a run of several processes: by flags, by JAX's cluster detection (`auto`), or not."""
    flags = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    missing = [name for name, value in flags.items() if value is None]
    if auto:
        if len(missing) < len(flags):
            raise ValueError("give either auto or coordinator/processes/process_id, not both")
        jax.distributed.initialize()
    elif not missing:
        jax.distributed.initialize(coordinator, num_processes=processes, process_id=process_id)
    elif len(missing) < len(flags):
        raise ValueError(
            f"a run over several processes also needs {', '.join(missing)}: give coordinator "
            "(host:port of process 0), processes (how many) and process_id (0 to processes - 1)"
        )


def cache_compilations(folder: str | os.PathLike | None = None) -> str:
    """Keep compiled programs for the next start, of any run, in a folder that is this user's alone.

    A cache that the user has chosen already stays. JAX trusts what it finds there: where others own
    the folder or may write in it, nothing is kept, and the result says so in words. Programs are
    found again after the folder was moved: what XLA would keep in it besides is left out, as its
    path would become part of what a program is found by.

    Args:
        folder: made if it is not there; None: ~/.cache/majl_jax/compiled, or that of
            XDG_CACHE_HOME.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return ""
    if folder is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.path.join(home, "majl_jax", "compiled")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        about = os.stat(folder)
    except OSError as error:
        return f"compiled programs are not kept: {error}"
    owner = os.getuid() if hasattr(os, "getuid") else about.st_uid
    if about.st_uid != owner or about.st_mode & 0o022:
        return (
            f"compiled programs are not kept: {os.fspath(folder)} belongs to somebody else, or"
            " others may write in it; chmod 700, or name another in JAX_COMPILATION_CACHE_DIR"
        )
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    return ""


def is_first_process() -> bool:
    """Whether this process is the one that writes files and speaks on the console."""
    return jax.process_index() == 0


def mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the one axis `AXIS` over the given devices, or over all of all processes."""
    return Mesh(np.array(jax.devices() if devices is None else list(devices)), (AXIS,))


def across(tree: T) -> T:
    """The mean over the devices of every floating-point leaf; the tree itself outside the mesh."""

    def mean(leaf):
        if not jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.numpy.inexact):
            return leaf  # counters and keys are the same on every device
        return jax.lax.pmean(leaf, AXIS)

    try:
        return jax.tree.map(mean, tree)
    except NameError:  # how JAX says that the axis is not bound
        return tree


def axis_size() -> int:
    """The number of devices that the step runs on; 1 outside the mesh."""
    try:
        return jax.lax.axis_size(AXIS)
    except NameError:
        return 1


def sharded(step: Callable, on: Mesh) -> Callable:
    """Compile `step(state, batch) -> (state, metrics)`: state replicated and donated, batch split.

    With `check_vma=False` the gradient of replicated parameters is one device's own, for the step
    to average. With the check JAX has summed it already: the average would be too large by the
    number of devices.
    """
    split, whole = PartitionSpec(AXIS), PartitionSpec()
    mapped = jax.shard_map(
        step, mesh=on, in_specs=(whole, split), out_specs=(whole, whole), check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0)


def runs_once(function: Callable) -> Callable:
    """`jax.jit` of what runs once, such as a network's first parameters: on CPU not optimised.

    Good code for hundreds of small draws takes XLA longer to make than the draws take, and was a
    third of the time to a training's first step or more.
    """
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    compiled = jax.jit(function, compiler_options=options)

    def call(*arguments: Any) -> Any:
        # Options belong to the outermost `jit`: where this is a part of another trace, it has none.
        traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments))
        return (function if traced else compiled)(*arguments)

    return call


def alone(function: Callable) -> Callable:
    """The function of arrays as the only device of a mesh runs it: its collectives change nothing.

    For what is written for the step, outside it: a loss traced on shapes, or called in a test.
    """
    whole = PartitionSpec()
    on = mesh(jax.local_devices()[:1])
    return jax.shard_map(function, mesh=on, in_specs=whole, out_specs=whole, check_vma=False)


def replicate(tree: T, on: Mesh) -> T:
    """Place a tree of arrays, equal in every process, whole on every device of the mesh."""
    sharding = NamedSharding(on, PartitionSpec())

    def place(leaf):
        if jax.numpy.issubdtype(jax.numpy.result_type(leaf), jax.dtypes.prng_key):
            data = place(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        # A copy: the step donates, and so deletes, what is placed here.
        value = np.array(leaf, dtype=jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype))
        return jax.make_array_from_process_local_data(sharding, value, value.shape)

    return jax.tree.map(place, tree)


def split(batch: Mapping[str, Any], on: Mesh) -> dict[str, Any]:
    """Place this process's share of a batch: its first axis is split over the devices."""
    local = sum(device.process_index == jax.process_index() for device in on.devices.flat)
    sizes = {name: np.shape(value)[0] for name, value in batch.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"every array of a batch needs the same number of examples, got {sizes}")
    if (size := next(iter(sizes.values()))) % local:
        raise ValueError(
            f"a batch of {size} examples does not divide over {local} devices of this process: "
            f"use a batch size that is a multiple of {on.devices.size}"
        )
    sharding = NamedSharding(on, PartitionSpec(AXIS))
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }


def on_one_device(tree: T) -> T:
    """This process's first copy of a replicated tree, without moving anything."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def on_host(tree: T) -> T:
    """A replicated tree as NumPy arrays."""
    return jax.device_get(on_one_device(tree))


def barrier(name: str) -> None:
    """Wait until every process is here."""
    global _barriers
    _barriers += 1  # a barrier's name may be used once
    # Orbax's sync_global_processes is a collective here, which ends without its timeout.
    wait = multihost.get_barrier_sync_fn()
    wait(key=f"majl_{name}_{_barriers}", timeout_ms=1000 * _BARRIER_TIMEOUT_S)


def any_process(flag: bool) -> bool:
    """Whether the flag is set in at least one process; every process has to ask."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def first_process(function: Callable[[], T]) -> T:
    """Call the function in process 0 only and give its (JSON) result to every process."""
    if jax.process_count() == 1:
        return function()
    text = json.dumps(function()).encode() if is_first_process() else b""
    barrier("first_process")  # collectives time out much earlier than this does
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(size, np.uint8)
    if text:
        buffer[:] = np.frombuffer(text, np.uint8)
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())
