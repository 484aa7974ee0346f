"""Opening what a run reads: prepared sets on its grid, and the input that its config names."""

import importlib.util
from collections.abc import Callable, Sequence

import jax

from majl_jax.datasets import readers
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.input import memory, tf_data
from majl_jax.datasets.input.schedule import Batches
from majl_jax.datasets.input.sources import AnySource
from majl_jax.datasets.records import Folder, Prepared, open_prepared


def named(name: str, *, fields: str = "") -> Callable[..., Batches]:
    """`open_batches` of "tf.data" (shards from disk) or "memory" (no TensorFlow); both take the
    same arguments; ModuleNotFoundError where what it needs is not installed.

    fields: what stands before the argument's name in an error, such as "config.data.".
    """
    match name:
        case "tf.data":
            if importlib.util.find_spec("tensorflow") is None:
                raise ModuleNotFoundError(
                    f"{fields}reader is tf.data, which needs TensorFlow, and it is not installed:"
                    f" pip install tensorflow-cpu, or do without it: --{fields}reader=memory, which"
                    " keeps the data in memory"
                )
            return tf_data.open_batches
        case "memory":
            return memory.open_batches
    raise ValueError(f"{fields}reader is {name!r}; expected tf.data or memory")


def open_batches(
    sources: Sequence[AnySource],
    *,
    reader: str,
    batch_size: int,
    segment_samples: int,
    seed: int,
    whole: bool = False,
    distinct_offsets: int = 0,
    fields: str = "",
) -> Batches:
    """This process's share of an endless stream of batches, from the input that `reader` names.

    Args:
        sources: the data sets of the stream, with their shares.
        reader: "tf.data" or "memory".
        batch_size: examples of all processes together.
        segment_samples: samples of an example, whole hops.
        seed: of the order and of where segments are cut.
        whole: whether this process reads all of every batch, for what it does alone.
        distinct_offsets: how many places a record is ever cut at; 0: a new one each time.
        fields: what stands before the name of `reader` in an error, such as "config.data.".
    """
    return named(reader, fields=fields)(
        sources,
        batch_size=batch_size,
        segment_samples=segment_samples,
        seed=seed,
        process_index=0 if whole else jax.process_index(),
        process_count=1 if whole else jax.process_count(),
        distinct_offsets=distinct_offsets,
    )


def open_set(
    directory: Folder,
    *,
    sample_rate_hz: int,
    hop_samples: int,
    channels: int | None = None,
    segment_samples: int | None = None,
    fields: str = "",
) -> Prepared:
    """A prepared data set, which is on the grid of the run.

    Args:
        directory: its folder.
        sample_rate_hz: that it has to have.
        hop_samples: samples from a label frame to the next that it has to have.
        channels: audio channels that it has to have; None: any.
        segment_samples: what fits into a record; None: any.
        fields: what stands before the name of an argument in an error, such as "config.data.".

    Raises FileNotFoundError where it is not prepared in full, ValueError where it does not fit.
    """
    wanted_grid = Grid(sample_rate_hz, hop_samples, channels or 1)
    prepared = open_prepared(directory, how=readers.how_to_prepare(directory, wanted_grid))
    grid = {"sample_rate_hz": sample_rate_hz, "hop_samples": hop_samples, "channels": channels}
    for name, wanted in grid.items():
        found = getattr(prepared.layout, name)
        if wanted is not None and found != wanted:
            raise ValueError(
                f"{prepared.directory} was prepared with {name} = {found}, {fields}{name} is"
                f" {wanted}: prepare it again with --{name}={wanted} and another --output, or"
                f" change {fields}{name}"
            )
    longest = prepared.layout.record_samples
    if segment_samples is not None and longest < segment_samples:
        raise ValueError(
            f"{prepared.directory} has records of {longest} samples, fewer than a segment of"
            f" {segment_samples}: prepare it again with longer --record_seconds, or lower"
            f" {fields}segment_samples"
        )
    return prepared
