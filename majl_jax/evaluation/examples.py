"""What scores leave for the report: a row per track, and example files of some tracks."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from majl_jax.audio import files
from majl_jax.evaluation.rows import Row, add_rows, write_rows

Stems = Float[np.ndarray, "time stem channel"]


@dataclasses.dataclass(frozen=True)
class ForReport:
    """Where rows and examples of scored tracks go, and how many examples there are."""

    folder: pathlib.Path | None = None
    """Gets tracks.jsonl and examples/<track>/; None: nothing is written."""
    example_count: int = 0
    """Of the first tracks."""
    example_seconds: float = 12.0
    """Length of an example."""
    anew: bool = False
    """Whether the rows of a set replace those that are there, even where sets are added."""

    def example_folder(self, name: str, number: int) -> pathlib.Path | None:
        """The folder of track `number` (from 0) if it is an example, else None."""
        if self.folder is None or number >= self.example_count:
            return None
        return self.folder / "examples" / files.safe_name(name)

    def keep_rows(self, rows: Sequence[Row], *, beside: bool = False) -> None:
        """Writes the rows of a whole split, in place of those that are there or, unless `anew`,
        beside them; none is a ValueError.
        """
        if not rows:
            raise ValueError(
                "no track to evaluate: the split is empty; check the data set and its splits"
            )
        if self.folder is not None:
            write = add_rows if beside and not self.anew else write_rows
            write(self.folder / "tracks.jsonl", rows)


NO_FILES = ForReport()


def write_signals(
    folder: pathlib.Path,
    signals: Mapping[str, Float[np.ndarray, "time channel"] | None],
    *,
    sample_rate_hz: int,
) -> None:
    """<name>.wav of each signal that is not None, limited to full scale, zero where it is no
    number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, audio in signals.items():
        if audio is not None:
            path = folder / f"{files.safe_name(name)}.wav"
            limited = np.clip(np.nan_to_num(audio), -1.0, 1.0)
            files.write_wav(path, limited, sample_rate_hz=sample_rate_hz)


def write_stems(
    folder: pathlib.Path,
    estimate: Stems,
    truth: Stems,
    *,
    stems: Sequence[str],
    sample_rate_hz: int,
) -> None:
    """mixture.wav, and <stem>_estimate.wav and <stem>_truth.wav of each stem.

    Args:
        folder: that of the example.
        estimate: what came out, full scale 1.
        truth: what was asked for; its sum over stems is the mixture.
        stems: their names.
        sample_rate_hz: of all of them.
    """
    signals: dict[str, np.ndarray | None] = {"mixture": truth.sum(1)}
    for number, stem in enumerate(stems):
        signals[f"{stem}_estimate"] = estimate[:, number]
        signals[f"{stem}_truth"] = truth[:, number]
    write_signals(folder, signals, sample_rate_hz=sample_rate_hz)
