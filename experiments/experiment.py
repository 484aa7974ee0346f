"""What a paper's experiment is made of: runs, the rows and tables that they give, and its data."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: the stages of a config with some fields changed.

    `borrows` is a stage of another run that serves as this one's stage of that name, with all
    before it, or as its first where it has none of that name, so that only the others train.
    Stages at the same place of their runs start from the same parameters and see the same batches.
    `after` are runs that have to be complete before: in the texts of `fields` their names in braces
    stand for their folders of the same seed, as "separator={mixit}:pretrain". `config` is another
    configs/NAME.py:PRESET than that of the other runs.
    """

    name: str
    stages: tuple[str, ...]
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    borrows: "tuple[Run, str] | None" = None
    after: "tuple[Run, ...]" = ()
    config: str = ""

    def with_lenders(self) -> "Iterator[Run]":
        """The runs it borrows from or comes after, the first one first, and itself."""
        for one in self.after:
            yield from one.with_lenders()
        if self.borrows is not None:
            yield from self.borrows[0].with_lenders()
        yield self

    def borrowed(self) -> "dict[str, tuple[Run, str]]":
        """The stages that it does not train itself: whose they are, and their name there."""
        if self.borrows is None:
            return {}
        lender, stage = self.borrows
        if stage not in self.stages:
            return {self.stages[0]: (lender, stage)}
        return {name: (lender, name) for name in self.stages[: self.stages.index(stage) + 1]}


def changed(name: str, *stages: str, borrows: tuple[Run, str] | None = None, **fields: Any) -> Run:
    """A run whose fields are keywords; `__` in one stands for a point."""
    named = {key.replace("__", "."): value for key, value in fields.items()}
    return Run(name, stages, named, borrows)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table: what a stage of a run scores on the test split.

    `x` is where it stands on the figure's axis, if that is a scale; points with the same `curve`
    are joined there. `against` is the label of the row that it is compared with, if not the
    table's base.
    """

    label: str
    run: Run
    stage: str
    x: float | None = None
    curve: str = ""
    against: str = ""


def rows_of(stage: str, runs: Mapping[str, Run]) -> tuple[Row, ...]:
    """The same stage of several runs, by their labels."""
    return tuple(Row(label, run, stage) for label, run in runs.items())


@dataclasses.dataclass(frozen=True)
class Table:
    """A question, what the paper says about it, and the rows that answer it.

    `base` is the place of the row that the others are compared with. `x_from` names what a line of
    results.jsonl has in the place of the rows' own `x`, which then tells the data apart that the
    axis is about; `logarithmic` is the axis.
    """

    title: str
    claim: str
    rows: tuple[Row, ...]
    x_label: str = ""
    base: int = 0
    x_from: str = ""
    logarithmic: bool = False

    def runs(self) -> Iterator[Run]:
        """The runs it needs, a borrowed one before its borrower, each once."""
        seen = set()
        for row in self.rows:
            for run in row.run.with_lenders():
                if run.name not in seen:
                    seen.add(run.name)
                    yield run


@dataclasses.dataclass(frozen=True)
class Column:
    """How a score is shown: its heading, by what it is multiplied, and digits behind the point."""

    heading: str
    factor: float = 1
    digits: int = 2


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Data sets of one call of `majl_jax.prepare`: names, where they go, further options."""

    names: tuple[str, ...]
    folder: pathlib.Path
    options: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Those of `majl_jax.prepare`."""
        names = ",".join(self.names)
        return [f"--dataset={names}", f"--output={self.folder}", *self.options]


@dataclasses.dataclass(frozen=True)
class Data:
    """What runs are trained on.

    Args:
        kind: the value of "data" in results.jsonl, and the folder of the runs.
        sets: data sets to prepare, in this order.
        fields: fields of the config that name them.
        words: by name, what stands for {NAME} in the texts of the runs' fields.
    """

    kind: str
    sets: tuple[DataSet, ...]
    fields: Mapping[str, Any]
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FromRuns:
    """What is drawn from the folders of runs, for which results.jsonl does not suffice.

    Args:
        draw: from the folder of all runs, named by their `Data.kind`, and the folder of figures,
            which it draws, to further lines of tables.md. It is called where all results of that
            kind still have their folders.
        heading: the first of these lines, where there are any.
    """

    draw: Callable[[pathlib.Path, pathlib.Path], list[str]]
    heading: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """All tables of a paper.

    Args:
        name: the folder below experiments/ and the module in configs/.
        title: the paper, in words.
        tables: by the names that `--table` takes.
        columns: by score, in the order of tables.md.
        shown: the two scores of differences and figures.
        data: from the command line (`data` is the folder of prepared sets) to what runs train on;
            ValueError: what is asked for does not go together.
        kinds: for each `Data.kind`, what it is in words, and what its command has besides.
        sources: options that take a folder, and their help.
        from_runs: what needs the folders of runs.
        config: configs/NAME.py:PRESET of the runs; by default `:experiment` of its own name.
    """

    name: str
    title: str
    tables: Mapping[str, Table]
    columns: Mapping[str, Column]
    shown: tuple[str, str]
    data: Callable[[argparse.Namespace], Data]
    kinds: Mapping[str, tuple[str, str]]
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    from_runs: FromRuns | None = None
    config: str = ""

    @property
    def preset(self) -> str:
        """configs/NAME.py:PRESET of the runs."""
        return self.config or f"configs/{self.name}.py:experiment"

    def runs(self) -> Sequence[Run]:
        """Those of all tables, each once."""
        found = {run.name: run for table in self.tables.values() for run in table.runs()}
        return tuple(found.values())
