"""The doctor's report: a table per data set, then its findings, the worst first; as text or as
JSON.
"""

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from majl_jax.prepare.check.findings import KINDS, SEVERITIES, Checked, Finding, decibels

SHOWN = 3  # tracks of a finding
WIDTH = 120


class Row(NamedTuple):
    """A split in the table; shares are of time, of all label places, and of the labelled ones."""

    split: str
    tracks: int
    hours: float
    records: int
    silent: float
    clipped: int  # tracks
    peak_db: float  # of the mixture
    rms_db: float
    labelled: float
    voiced: float


FORMATS = ("", "d", ".2f", "d", ".1%", "d", ".1f", ".1f", ".1%", ".1%")


@dataclasses.dataclass(frozen=True)
class Report:
    """Every data set that was looked at; printed, it is meant for people."""

    sets: Sequence[Checked]
    seconds: float

    def findings(self) -> list[Finding]:
        """Those of all sets."""
        return [finding for one in self.sets for finding in one.findings]

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == "error" for finding in self.findings())

    def __str__(self) -> str:
        parts = ["\n".join(_of_set(one)) for one in self.sets]
        return "\n\n".join([*parts, _summary(self)])

    def to_json(self) -> str:
        """The same for programs."""
        sets = [
            {
                "name": one.name,
                "folder": one.folder,
                "splits": [row._asdict() for row in _rows(one)],
                "findings": [
                    {"severity": finding.severity, **dataclasses.asdict(finding)}
                    for finding in _sorted(one.findings)
                ],
            }
            for one in self.sets
        ]
        return json.dumps({"failed": self.failed, "sets": sets}, indent=2)


def _of_set(one: Checked) -> Iterator[str]:
    yield f"{one.name}: {one.folder}" + (" (source, not prepared)" if one.from_source else "")
    if one.layout is not None:
        layout = one.layout
        yield (
            f"  {layout.sample_rate_hz} Hz, {layout.channels} channel{'s' * (layout.channels > 1)},"
            f" a label every {layout.hop_samples} samples, records of"
            f" {layout.record_samples / layout.sample_rate_hz:.4g} s; stems:"
            f" {', '.join(layout.stems)}"
        )
    yield from _table(list(_rows(one)))
    for finding in _sorted(one.findings):
        yield from _of_finding(finding)
    if not one.findings:
        yield "  nothing wrong found"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    texts = [[name.replace("_db", " dB") for name in Row._fields]]
    texts += [[format(v, how) for v, how in zip(row, FORMATS, strict=True)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for split, *others in texts:
        numbers = (text.rjust(width) for text, width in zip(others, widths[1:], strict=True))
        yield "  ".join(["", split.ljust(widths[0]), *numbers])


def _rows(one: Checked) -> Iterator[Row]:
    layout = one.layout
    if layout is None:
        return
    for split in one.splits():
        tracks = one.of_split(split)
        silent, blocks = np.sum([track.silence for track in tracks], axis=0).tolist()
        labelled = sum(int(track.labelled.sum()) for track in tracks)
        voiced = sum(int(track.voiced.sum()) for track in tracks)
        heard = max(sum(samples for track in tracks for _, samples in track.spans), 1)
        power = sum(float(track.gram.sum()) for track in tracks) / (heard * layout.channels)
        yield Row(
            split=split,
            tracks=len(tracks),
            hours=sum(track.samples for track in tracks) / layout.sample_rate_hz / 3600,
            records=sum(len(track.spans) for track in tracks),
            silent=silent / max(blocks, 1),
            clipped=sum(bool(track.clipped.any()) for track in tracks),
            peak_db=decibels(max(track.mixture_peak for track in tracks)),
            rms_db=decibels(max(power, 0.0) ** 0.5),
            labelled=labelled / (heard / layout.hop_samples * layout.pitch_voices),
            voiced=voiced / max(labelled, 1),
        )


def _sorted(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _of_finding(finding: Finding) -> Iterator[str]:
    kind = KINDS[finding.name]
    of_split = f", {finding.split}" if finding.split else ""
    texts = [f"{finding.name}{of_split}: {finding.what}"]
    if finding.where:
        more = len(finding.where) - SHOWN
        texts[0] += ": " + ", ".join(finding.where[:SHOWN]) + (f", … {more} more" * (more > 0))
    expected = f"expected {kind.expected}; " if kind.expected else ""
    texts.append(expected + kind.advice)
    first = f"  {kind.severity.upper() if kind.severity == 'error' else kind.severity:<8} "
    for number, text in enumerate(texts):
        yield textwrap.fill(
            text,
            WIDTH,
            initial_indent=first if number == 0 else " " * 11,
            subsequent_indent=" " * 11,
            break_on_hyphens=False,
            break_long_words=False,
        )


def _summary(report: Report) -> str:
    found = report.findings()
    counts = {s: sum(finding.severity == s for finding in found) for s in SEVERITIES}
    said = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
    read = sum(one.bytes_read for one in report.sets) / 1e9
    plural = "s" * (len(report.sets) != 1)
    return f"{len(report.sets)} data set{plural}, {read:.2f} GB in {report.seconds:.0f} s: {said}"
