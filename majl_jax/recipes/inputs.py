"""Whether the input of every stage of a run fits its devices and its reader, looked at before any
trains: hours later would be too late.
"""

from collections.abc import Sequence

import jax

from majl_jax.datasets.input.sources import AnySource, open_sources


def device_share(
    field: str, size: int, *, least: int = 1, multiple: int = 1, because: str = ""
) -> int:
    """How many examples of a batch each device gets; ValueError where they do not share it evenly.

    Args:
        field: of the config, that says `size`.
        size: examples of all devices together.
        least: how many a device needs.
        multiple: of how many its share has to be.
        because: why it needs them.
    """
    devices = jax.device_count()

    def fits(examples: int, over: int) -> bool:
        share, rest = divmod(examples, over)
        return not rest and not share % multiple and share >= least

    if fits(size, devices):
        return size // devices
    step = multiple * devices
    larger = max(-(-size // step), -(-least // multiple)) * step
    advice = f"take {larger}"
    if fewer := next((n for n in range(devices - 1, 0, -1) if fits(size, n)), 0):
        advice += f", or hide all but {fewer} device{'s' * (fewer > 1)} (docs/clusters.md)"
    raise ValueError(
        f"{field} is {size}, over {devices} device{'s' * (devices > 1)}; expected a multiple of"
        f" {step}{f' from {least * devices} on' * (least > multiple)}"
        f"{f' ({because})' * bool(because)}: {advice}"
    )


def check_sources(sources: Sequence[AnySource], *, reader: str) -> None:
    """ValueError where the data sets of a stage do not fit each other, or `reader` (the field
    config.data.reader); only their indexes are read.
    """
    for one in open_sources(sources):
        prepared = one.prepared
        if reader == "tf.data" and prepared.file_format != "tfrecord":
            raise ValueError(
                f"{prepared.directory} is in {prepared.file_format} format, and config.data.reader"
                " is tf.data, which reads tfrecord: prepare it again with --file_format=tfrecord"
                " and another --output, or take --config.data.reader=memory"
            )
