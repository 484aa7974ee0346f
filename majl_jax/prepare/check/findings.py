"""Findings of the doctor: what each kind means, how bad it is, what to do about it."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from majl_jax.audio import int16
from majl_jax.datasets.cutting import Layout
from majl_jax.prepare.check.facts import Facts, merge

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Kind(NamedTuple):
    """A kind of fault."""

    severity: Severity
    expected: str
    advice: str


PREPARE_AGAIN = "remove the folder and prepare the set again"
IN_READER = "look at these files and at the reader"
KINDS: dict[str, Kind] = {
    # Files.
    "no index": Kind("error", "an index.json that can be read", PREPARE_AGAIN),
    "index": Kind("error", "one entry in index.json for each record of a shard", PREPARE_AGAIN),
    "missing shard": Kind(
        "error", "every shard of index.json", "copy it again, or " + PREPARE_AGAIN
    ),
    "truncated shard": Kind(
        "error", "the size in index.json", "copy it again, or " + PREPARE_AGAIN
    ),
    "unknown shard": Kind(
        "warning", "no shards but those of index.json", "of another copy? remove it"
    ),
    "damaged record": Kind(
        "error", "records whose checksum is right", "copy the shard again, or " + PREPARE_AGAIN
    ),
    "empty split": Kind("error", "records in every split of the index", PREPARE_AGAIN),
    "tracks missing": Kind("warning", "as many tracks as report.json counts", PREPARE_AGAIN),
    "skipped tracks": Kind(
        "note", "no bad files", "report.json says why each; mend the files and prepare again"
    ),
    "many skipped tracks": Kind(
        "warning", "few bad files", "report.json says why each; mend the files and prepare again"
    ),
    "unreadable track": Kind(
        "error",
        "files that can be read and fit each other",
        "mend or remove them; prepare skips them",
    ),
    "layouts differ": Kind(
        "warning",
        "one rate, hop and number of channels for sets that are mixed",
        "prepare those that are to be used together with the same options",
    ),
    # Lengths.
    "record length": Kind("error", "records as the layout has them", PREPARE_AGAIN),
    "gap": Kind("error", "records from a track's beginning to its end", PREPARE_AGAIN),
    "overlap": Kind(
        "error",
        "records side by side, of which only the last overlaps the one before",
        PREPARE_AGAIN,
    ),
    "padding": Kind("error", "zeros and no labels after a track's end", PREPARE_AGAIN),
    "short track": Kind(
        "warning",
        "tracks of a second or more",
        "are they cut off? otherwise leave them out",
    ),
    # Silence and levels.
    "silent track": Kind("error", "sound", IN_READER),
    "mostly silent": Kind(
        "warning",
        "sound in half of the time or more",
        "is the file cut off? otherwise prepare with --drop_silence",
    ),
    "silence": Kind(
        "note",
        "less than a tenth of the time in digital silence",
        "prepare with --drop_silence, if it is of no use",
    ),
    "silent stem": Kind(
        "note",
        "every stem to sound",
        "natural where a piece lacks an instrument; the SDR of such a stem is undefined",
    ),
    "stem never sounds": Kind(
        "warning",
        "every stem to sound in some track of a split",
        "look at the names by which the reader finds its files",
    ),
    "very quiet": Kind("warning", "a peak above -42 dB", "is its full scale another? " + IN_READER),
    "far quieter": Kind("note", "levels within 30 dB of the split's median", IN_READER),
    "clipping": Kind(
        "warning",
        "no more than a few runs of samples at full scale",
        "is the source clipped, or scaled twice? " + IN_READER,
    ),
    "flattened peaks": Kind(
        "warning",
        "extremes that last less than four samples",
        "the source was clipped and then turned down; nothing mends that",
    ),
    "beyond full scale": Kind(
        "note",
        "mixtures within 16 bits",
        "harmless to models, which sum in float; files written from it would clip",
    ),
    "DC offset": Kind("warning", "a mean within 2 % of full scale", "high-pass the source"),
    # Stems.
    "equal stems": Kind("error", "different stems", "is one file read twice? " + IN_READER),
    "inverted stem": Kind(
        "error", "stems that do not cancel each other", "turn over the phase of one"
    ),
    "stem is the sum": Kind(
        "error",
        "stems that together are the mixture",
        "is the mixture among the stems? " + IN_READER,
    ),
    "unknown stems sound": Kind(
        "error", "without known stems, the mixture in stem 0 and zeros in the others", IN_READER
    ),
    "mixture differs": Kind(
        "warning",
        "stems that add up to the data set's own mixture",
        "is a stem missing, or shifted against the others?",
    ),
    # Labels.
    "pitch NaN or negative": Kind("error", "f0 of 0 (unvoiced) or more", IN_READER),
    "pitch out of range": Kind(
        "error",
        "f0 of 20 to 8000 Hz and below half the sample rate",
        "are they in Hz? " + IN_READER,
    ),
    "pitch is a note number": Kind(
        "error", "f0 in Hz", "these are whole numbers below 128: convert MIDI notes to Hz"
    ),
    "no pitch labels": Kind(
        "note",
        "",
        "right for sets of stems or mixtures alone; look at the reader if it is to have labels",
    ),
    "split without labels": Kind(
        "warning", "pitch labels in every split, as in the others", IN_READER
    ),
    "unlabelled tracks": Kind(
        "note", "labels for every track of a split", "are their label files missing?"
    ),
    "never voiced": Kind(
        "note", "", "right for drums and speech alone: every label says that there is no pitch"
    ),
    "unvoiced tracks": Kind("warning", "a pitch somewhere", "are their label files empty?"),
    "pitch in silence": Kind(
        "warning",
        "sound where a pitch is labelled",
        "do labels and audio belong to each other, and begin together?",
    ),
    "labels shifted": Kind(
        "warning",
        "labels that fit the audio best as they are",
        "look at the time of the reader's first label, and at where the audio begins",
    ),
    "labels do not fit": Kind(
        "warning",
        "audio that repeats with the labelled period",
        "are they labels of another track, or of another stem?",
    ),
    # The same twice.
    "same track in two splits": Kind(
        "error", "each track in one split", "mend the list of the splits"
    ),
    "same audio in two splits": Kind(
        "error",
        "each recording in one split",
        "scores on it mean nothing: take it out of one of them",
    ),
    "same sound in two splits": Kind(
        "warning",
        "different recordings in different splits",
        "listen to them; if they are copies, take one out",
    ),
    "same stem in two splits": Kind(
        "warning",
        "different recordings in different splits",
        "scores on that stem are too good: keep such tracks in one split",
    ),
    "group in two splits": Kind(
        "warning",
        "each group (singer, album, tune) in one split",
        "right only if the split is so by design",
    ),
    "same audio twice": Kind(
        "note", "each recording once", "remove one, unless it is to count double"
    ),
    "same sound twice": Kind(
        "note", "each recording once", "listen to them; if they are copies, remove one"
    ),
    "same sound in two sets": Kind(
        "warning",
        "different recordings in different splits",
        "do not train on the one and score on the other",
    ),
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault, of one track or of many."""

    name: str  # a key of KINDS
    split: str
    what: str
    where: tuple[str, ...] = ()  # tracks or files

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return KINDS[self.name].severity


@dataclasses.dataclass
class Checked:
    """Everything that is known about one data set after its records or files have been read."""

    name: str
    folder: str
    layout: Layout | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    facts: dict[tuple[str, str], Facts] = dataclasses.field(default_factory=dict)  # split, track
    report: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of prepare
    from_source: bool = False
    findings: list[Finding] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    bytes_read: int = 0

    def add(self, facts: Facts) -> None:
        """Takes in the facts of a track, or of more records of one."""
        key = (facts.split, facts.track)
        old = self.facts.get(key)
        self.facts[key] = facts if old is None else merge(old, facts)

    def splits(self) -> list[str]:
        """The splits that have tracks, in the usual order."""
        usual = ("train", "valid", "test")
        found = {split for split, _ in self.facts}
        return [*(s for s in usual if s in found), *sorted(found - set(usual))]

    def of_split(self, split: str) -> list[Facts]:
        """The tracks of a split."""
        return [one for (its_split, _), one in self.facts.items() if its_split == split]


def decibels(amplitude: float | int) -> float:
    """An amplitude of 16 bits in dB against full scale."""
    return 20 * float(np.log10(max(amplitude, 1e-3) / int16.FULL_SCALE))


def rms(one: Facts, layout: Layout) -> float:
    """Root mean square of the mixture of a track."""
    heard = sum(max(samples, 0) for _, samples in one.spans) * layout.channels
    return float(np.sqrt(max(one.gram.sum(), 0.0) / max(heard, 1)))


def named_stems(chosen: np.ndarray, layout: Layout) -> str:
    """The names of the stems that a mask, bool [stem], chooses."""
    return ", ".join(layout.stems[number] for number in np.flatnonzero(chosen))
