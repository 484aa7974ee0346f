"""Rows of a batch over this process's devices, with the variables whole on each of them."""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Devices = tuple[Any, ...]
_ROW = "row"
_Part = TypeVar("_Part")


def dividing(batch_size: int, devices: Sequence[Any] | None = None) -> Devices:
    """As many of the devices (None: of this process's) as divide the batch."""
    local = tuple(jax.local_devices() if devices is None else devices)
    return local[: math.gcd(batch_size, len(local))]


def on_first(devices: Sequence[Any] | None) -> contextlib.AbstractContextManager[Any]:
    """What says of no array where it belongs runs on the first of the devices; None: as ever."""
    return jax.default_device(devices[0]) if devices else contextlib.nullcontext()


def stepwise(parts: Iterator[_Part], devices: Sequence[Any] | None) -> Iterator[_Part]:
    """The same parts, each of them made `on_first`, which does not last in between."""
    while True:
        with on_first(devices):
            try:
                part = next(parts)
            except StopIteration:
                return
        yield part


def by_rows(function: Callable[..., Any], devices: Devices, *, whole: int, rows: int) -> Any:
    """Compiles a function of `whole` arguments that every device has and `rows` that are split.

    The first axis of the split arguments, and of what the function returns, is the row.
    """
    everywhere, split = PartitionSpec(), PartitionSpec(_ROW)
    # shard_map, not automatic sharding: FFTs would otherwise gather the batch on every device.
    mapped = jax.shard_map(
        function,
        mesh=Mesh(np.array(devices), (_ROW,)),
        in_specs=(everywhere,) * whole + (split,) * rows,
        out_specs=split,
        check_vma=False,
    )
    return jax.jit(mapped)


def everywhere(variables: Any, devices: Devices) -> Any:
    """Puts variables, or several systems' in a list, whole on every device."""
    sharding = NamedSharding(Mesh(np.array(devices), (_ROW,)), PartitionSpec())

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            # Replicated over processes: this process's copy.
            leaf = leaf.addressable_data(0)
        return jax.device_put(leaf, sharding)

    return jax.tree.map(place, variables)
