"""What can be wrong with a split or a whole data set, as seen from the facts of its tracks."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from majl_jax.prepare.check.arrays import label_shifts
from majl_jax.prepare.check.facts import Facts
from majl_jax.prepare.check.findings import Checked, Finding, decibels, named_stems, rms
from majl_jax.prepare.check.track_rules import FEWEST_FRAMES, TRACK_RULES

MANY = 0.1  # of the time, or of the tracks
QUIETER_DB = 30.0
# Labels are shifted where so much later or earlier ones fit the audio so much better: of a track,
# of a whole set. In sets that are right the best shift is -20 to 0 ms (sound sets in slowly),
# rarely -48 ms by less than 0.003.
SHIFT_S, TRACK_GAIN, SET_GAIN = 0.035, 0.015, 0.004
NOTE_NUMBERS = 128


def judge(checked: Checked) -> Iterator[Finding]:
    """The findings about the tracks, each by itself and all together."""
    layout = checked.layout
    if layout is None:
        return
    # Where silence was dropped there are gaps, by design.
    left_out = {"gap"} if checked.options.get("drop_silence") else set()
    for split in checked.splits():
        tracks = checked.of_split(split)
        for name in (name for name in TRACK_RULES if name not in left_out):
            texts = [(one.track, TRACK_RULES[name](one, layout)) for one in tracks]
            yield from _finding(name, split, tracks, [f"{t} ({text})" for t, text in texts if text])
        for of_split in SPLIT_RULES:
            yield from of_split(split, tracks, checked)
    for of_set in SET_RULES:
        yield from of_set(checked)


def _finding(
    name: str, split: str, tracks: Sequence[Facts], where: Sequence[str]
) -> Iterator[Finding]:
    if where:
        yield Finding(name, split, f"{len(where)} of {len(tracks)} tracks", tuple(where))


def _silence(split: str, tracks: Sequence[Facts], _: Checked) -> Iterator[Finding]:
    silent, blocks = np.sum([one.silence for one in tracks], axis=0).tolist()
    if silent > MANY * blocks:
        worst = sorted(tracks, key=lambda one: -one.silence[0])
        where = tuple(one.track for one in worst if one.silence[0])
        yield Finding("silence", split, f"{silent / blocks:.0%} of the time", where)


def _silent_stems(split: str, tracks: Sequence[Facts], checked: Checked) -> Iterator[Finding]:
    assert checked.layout is not None
    silent = np.stack([one.has_stems & ~one.sounding_stems for one in tracks])
    known = np.stack([one.has_stems for one in tracks])
    never = known.any(axis=0) & (silent == known).all(axis=0) & (len(tracks) > 1)
    if never.any():
        yield Finding("stem never sounds", split, named_stems(never, checked.layout))
    rows = [
        f"{one.track} ({named_stems(row & ~never, checked.layout)})"
        for one, row in zip(tracks, silent, strict=True)
        if one.mixture_peak and (row & ~never).any()
    ]
    yield from _finding("silent stem", split, tracks, rows)


def _far_quieter(split: str, tracks: Sequence[Facts], checked: Checked) -> Iterator[Finding]:
    assert checked.layout is not None
    sounding = [one for one in tracks if one.mixture_peak]
    levels_db = np.asarray([decibels(rms(one, checked.layout)) for one in sounding])
    if not len(levels_db):
        return
    below = float(np.median(levels_db)) - levels_db
    rows = [
        f"{one.track} ({by:.0f} dB below)"
        for one, by in zip(sounding, below, strict=True)
        if by > QUIETER_DB
    ]
    yield from _finding("far quieter", split, tracks, rows)


def _labels(split: str, tracks: Sequence[Facts], checked: Checked) -> Iterator[Finding]:
    labelled = np.asarray([one.labelled.sum() > 0 for one in tracks])
    voiced = np.asarray([one.voiced.sum() > 0 for one in tracks])
    elsewhere = any(one.labelled.any() for one in checked.facts.values())
    if elsewhere and not labelled.any():
        yield Finding("split without labels", split, "no track of it has a pitch label")
    elif labelled.any():
        rows = [one.track for one, has in zip(tracks, labelled, strict=True) if not has]
        yield from _finding("unlabelled tracks", split, tracks, rows)
    if voiced.any():
        silent = labelled & ~voiced
        rows = [one.track for one, has in zip(tracks, silent, strict=True) if has]
        yield from _finding("unvoiced tracks", split, tracks, rows)


def _no_labels(checked: Checked) -> Iterator[Finding]:
    tracks = list(checked.facts.values())
    if not any(one.labelled.any() for one in tracks):
        yield Finding("no pitch labels", "", "no frame of any track has a pitch label")
    elif not any(one.voiced.any() for one in tracks):
        yield Finding("never voiced", "", "every labelled frame of every track is unvoiced")


def _note_numbers(checked: Checked) -> Iterator[Finding]:
    tracks = [one for one in checked.facts.values() if one.voiced.any()]
    lowest = min((one.pitch_hz[0] for one in tracks), default=0.0)
    highest = max((one.pitch_hz[1] for one in tracks), default=0.0)
    whole = not any(one.not_whole for one in tracks)
    if whole and lowest < highest < NOTE_NUMBERS:
        yield Finding("pitch is a note number", "", f"labels are {lowest:.0f} to {highest:.0f}")


def _shifted(checked: Checked) -> Iterator[Finding]:
    assert checked.layout is not None
    fits_nowhere = TRACK_RULES["labels do not fit"]
    tracks = [one for one in checked.facts.values() if not fits_nowhere(one, checked.layout)]
    grid = checked.layout.grid
    frames = label_shifts(grid)
    shifts_s = frames * grid.hop_samples / grid.sample_rate_hz
    later_s = [_late_s(one.fit, shifts_s, TRACK_GAIN) for one in tracks]
    where = tuple(
        f"{one.track} ({_in_words(late_s)})"
        for one, late_s in zip(tracks, later_s, strict=True)
        if late_s
    )
    fits = [one.fit for one in tracks]
    whole_s = _late_s(np.sum(fits, axis=0), shifts_s, SET_GAIN) if fits else 0.0
    what = f"{len(where)} of {len(tracks)} tracks"
    if whole_s:
        yield Finding(
            "labels shifted",
            "",
            f"{_in_words(whole_s)} over all tracks; by themselves {what}",
            where,
        )
    elif where:
        yield Finding("labels shifted", "", what, where)


def _late_s(fit: np.ndarray, shifts_s: np.ndarray, least_gain: float) -> float:
    """By how much labels come late, in seconds; 0 where they do not, or where that is not clear."""
    if fit[:, 1].min(initial=np.inf) < FEWEST_FRAMES:
        return 0.0
    score, middle = fit[:, 0] / fit[:, 1], len(fit) // 2
    late_s = float(shifts_s[score.argmax()])
    clear = score.max() - score[middle] > least_gain and abs(late_s) > SHIFT_S
    return late_s if clear else 0.0


def _in_words(late_s: float) -> str:
    return f"{abs(1000 * late_s):.0f} ms too {'late' if late_s > 0 else 'early'}"


def _counts(checked: Checked) -> Iterator[Finding]:
    """What report.json says against what is there."""
    counted = checked.report.get("tracks", {})
    dropped = checked.options.get("drop_silence", False)
    for split, count in counted.items():
        found = len(checked.of_split(split))
        if found > count or (found < count and not dropped):
            yield Finding("tracks missing", split, f"{found} of {count} tracks are there")
    if skipped := checked.report.get("skipped", {}):
        total = len(skipped) + sum(counted.values())
        name = "many skipped tracks" if len(skipped) > MANY * total else "skipped tracks"
        where = tuple(f"{track} ({reason})" for track, reason in skipped.items())
        yield Finding(name, "", f"{len(skipped)} of {total} tracks", where)


def _groups(checked: Checked) -> Iterator[Finding]:
    splits: dict[str, set[str]] = {}
    for (split, _), one in checked.facts.items():
        if one.group:
            splits.setdefault(one.group, set()).add(split)
    torn = {group: found for group, found in splits.items() if len(found) > 1}
    if torn:
        where = tuple(f"{group} ({', '.join(sorted(found))})" for group, found in torn.items())
        yield Finding("group in two splits", "", f"{len(torn)} of {len(splits)} groups", where)


SPLIT_RULES: tuple[Callable[[str, Sequence[Facts], Checked], Iterator[Finding]], ...] = (
    _silence,
    _silent_stems,
    _far_quieter,
    _labels,
)
SET_RULES: tuple[Callable[[Checked], Iterator[Finding]], ...] = (
    _no_labels,
    _note_numbers,
    _shifted,
    _counts,
    _groups,
)
