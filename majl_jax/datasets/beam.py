"""Tracks loaded and cut by the workers of an Apache Beam pipeline, for `prepare --beam`.

Apache Beam is imported inside the functions: the rest of the package does without it.
"""

import importlib
import shlex
from collections.abc import Callable
from typing import Any

from majl_jax.datasets.cutting import Record

HOW_TO_INSTALL = (
    "--beam needs Apache Beam, which is not installed. In a virtual environment of its own (it "
    'needs protobuf below 7): pip install -e ".[beam]", without -c constraints.txt. Without '
    "--beam the same data set is prepared on this machine."
)


def pipeline_options(text: str) -> Any:
    """The options of a pipeline as on a command line, such as "--runner=DirectRunner"."""
    return apache_beam().options.pipeline_options.PipelineOptions(shlex.split(text))


def apache_beam() -> Any:
    """The package; an ImportError that says how to install it where it is missing."""
    try:
        return importlib.import_module("apache_beam")
    except ImportError as error:
        raise ImportError(HOW_TO_INSTALL) from error


def keyed(records: Any, key: Callable[[Record], str], *, stand_in: Record) -> Any:
    """A Beam transform to (key, record) for each record of another one; to `stand_in` where there
    is none.
    """
    beam = apache_beam()

    def expand(begin):
        made = begin | "Records" >> records
        instead = (
            made
            | "Count" >> beam.combiners.Count.Globally()
            | "IfNone" >> beam.FlatMap(lambda count: [] if count else [stand_in])
        )
        return (
            (made, instead)
            | "Either" >> beam.Flatten()
            | "Key" >> beam.Map(lambda record: (key(record), record))
        )

    return beam.ptransform_fn(expand)()
