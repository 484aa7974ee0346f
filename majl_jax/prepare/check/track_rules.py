"""What can be wrong with one track, as seen from its facts: a few words about it, or none."""

from collections.abc import Callable

import numpy as np

from majl_jax.audio import int16
from majl_jax.datasets.cutting import Layout
from majl_jax.prepare.check import arrays
from majl_jax.prepare.check.facts import PITCH_RANGE_HZ, Facts
from majl_jax.prepare.check.findings import decibels, named_stems

SHORTEST_S = 1.0
MOSTLY = 0.5  # of a track's time in digital silence
QUIET_PEAK = 256  # -42 dB: less than nine bits are used
CLIPPED_PER_S, FEWEST_FLAT = 0.5, 10  # runs
LEAST_BEYOND = 1.02  # of full scale: 0.2 dB
OFFSET = 0.02  # of full scale
ALIKE = 0.99  # correlation
IN_SILENCE = 0.02  # of a track's voiced frames
FEWEST_FRAMES = 150  # voiced, that labels are judged by
# Self-likeness at the labelled period: right labels give 0.46 to 0.85 of stems and 0.08 to 0.35 of
# mixtures, labels of other tracks -0.05 to 0.2 and less than 0.06.
LEAST_FIT, LEAST_FIT_IN_MIXTURE = 0.2, 0.05


def _length(one: Facts, layout: Layout) -> str:
    for start, samples in sorted(one.spans):
        if not 0 < samples <= layout.record_samples:
            return f"a record of {samples} samples, expected 1 to {layout.record_samples}"
        if start < 0 or start % layout.hop_samples:
            return f"a record begins at sample {start}, no multiple of {layout.hop_samples}"
    return ""


def _gap(one: Facts, layout: Layout) -> str:
    at = 0
    for start, samples in sorted(one.spans):
        if start > at and not _length(one, layout):
            from_s, to_s = at / layout.sample_rate_hz, start / layout.sample_rate_hz
            return f"nothing from {from_s:.1f} to {to_s:.1f} s"
        at = max(at, start + samples)
    return ""


def _overlap(one: Facts, layout: Layout) -> str:
    spans = sorted(one.spans)
    inner = [start for start, _ in spans[:-1]]
    if len({start for start, _ in spans}) < len(spans):
        return "a record twice"
    if any(start % layout.record_samples for start in inner):
        return "records overlap before the last"
    frames_short = layout.record_samples - layout.hop_samples
    if len(spans) > 1 and any(0 < samples <= frames_short for _, samples in spans):
        return "padding in the middle"
    return ""


def _padding(one: Facts, layout: Layout) -> str:
    if _length(one, layout):
        return ""
    sounds, labels = one.padding.tolist()
    texts = [f"{sounds} samples that sound"] * (sounds > 0) + [f"{labels} labels"] * (labels > 0)
    return " and ".join(texts)


def _short(one: Facts, layout: Layout) -> str:
    seconds = one.samples / layout.sample_rate_hz
    return f"{seconds:.2f} s" if seconds < SHORTEST_S else ""


def _silent(one: Facts, _: Layout) -> str:
    return "" if one.mixture_peak else "every sample is 0"


def _mostly_silent(one: Facts, _: Layout) -> str:
    silent, blocks = one.silence.tolist()
    return f"{silent / blocks:.0%}" if one.mixture_peak and silent > MOSTLY * blocks else ""


def _quiet(one: Facts, _: Layout) -> str:
    quiet = 0 < one.mixture_peak < QUIET_PEAK
    return f"peak {decibels(one.mixture_peak):.0f} dB" if quiet else ""


def _clipping(one: Facts, layout: Layout) -> str:
    often = one.clipped > CLIPPED_PER_S * one.samples / layout.sample_rate_hz
    if not often.any():
        return ""
    return f"{named_stems(often, layout)}: {one.clipped[often].max()} times"


def _flat(one: Facts, layout: Layout) -> str:
    often = one.flat >= FEWEST_FLAT
    return f"{named_stems(often, layout)}: {one.flat[often].max()} times" if often.any() else ""


def _beyond(one: Facts, _: Layout) -> str:
    over = one.mixture_peak > LEAST_BEYOND * int16.FULL_SCALE
    return f"{decibels(one.mixture_peak):+.1f} dB" if over else ""


def _offset(one: Facts, layout: Layout) -> str:
    heard = sum(samples for _, samples in one.spans) * layout.channels
    shares = one.sums / (max(heard, 1) * int16.FULL_SCALE)
    far = np.abs(shares) > OFFSET
    worst = shares[np.abs(shares).argmax()]
    return f"{named_stems(far, layout)}: {worst:+.1%} of full scale" if far.any() else ""


def _alike(one: Facts, layout: Layout, sign: int) -> str:
    heard = one.has_stems & (one.peaks > QUIET_PEAK)
    both = np.triu(np.outer(heard, heard), 1)
    places = np.argwhere(both & (sign * arrays.likeness(one.gram) > ALIKE))
    return ", ".join(f"{layout.stems[a]} and {layout.stems[b]}" for a, b in places)


def _equal(one: Facts, layout: Layout) -> str:
    return _alike(one, layout, 1)


def _inverted(one: Facts, layout: Layout) -> str:
    return _alike(one, layout, -1)


def _sum_of_others(one: Facts, layout: Layout) -> str:
    if np.count_nonzero(one.sounding_stems) < 3 or not one.has_stems.all():
        return ""
    alike = np.abs(arrays.likeness_to_rest(one.gram)) > ALIKE
    return named_stems(alike & (one.peaks > QUIET_PEAK), layout)


def _unknown_sound(one: Facts, layout: Layout) -> str:
    sounding = one.peaks > 0
    sounding[0] = False
    return "" if one.has_stems.any() else named_stems(sounding, layout)


def _bad_pitch(one: Facts, _: Layout) -> str:
    kinds = zip(one.bad_pitch.tolist(), ("NaN or infinite", "negative"), strict=False)
    return ", ".join(f"{count} {kind}" for count, kind in kinds if count)


def _pitch_range(one: Facts, layout: Layout) -> str:
    low, high = one.pitch_hz
    high_limit = min(PITCH_RANGE_HZ[1], layout.sample_rate_hz / 2)
    found = [f"{hz:.4g} Hz" for hz in (low, high) if not PITCH_RANGE_HZ[0] <= hz <= high_limit]
    return f"{one.bad_pitch[2]} labels, to {found[-1]}" if one.bad_pitch[2] and found else ""


def _in_silence(one: Facts, _: Layout) -> str:
    voiced, silent = one.voiced.sum(), one.voiced_in_silence.sum()
    return f"{silent / voiced:.0%}" if silent > IN_SILENCE * voiced else ""


def _unfitting(one: Facts, layout: Layout) -> str:
    frames = one.fit[:, 1]
    if frames.min(initial=np.inf) < FEWEST_FRAMES:
        return ""
    best = float((one.fit[:, 0] / frames).max())
    separate = layout.voices_are_stems and one.has_stems.all()
    return f"{best:.2f}" if best < (LEAST_FIT if separate else LEAST_FIT_IN_MIXTURE) else ""


def _mixture_file(one: Facts, _: Layout) -> str:
    return one.mixture_file


TRACK_RULES: dict[str, Callable[[Facts, Layout], str]] = {
    "record length": _length,
    "gap": _gap,
    "overlap": _overlap,
    "padding": _padding,
    "short track": _short,
    "silent track": _silent,
    "mostly silent": _mostly_silent,
    "very quiet": _quiet,
    "clipping": _clipping,
    "flattened peaks": _flat,
    "beyond full scale": _beyond,
    "DC offset": _offset,
    "equal stems": _equal,
    "inverted stem": _inverted,
    "stem is the sum": _sum_of_others,
    "unknown stems sound": _unknown_sound,
    "mixture differs": _mixture_file,
    "pitch NaN or negative": _bad_pitch,
    "pitch out of range": _pitch_range,
    "pitch in silence": _in_silence,
    "labels do not fit": _unfitting,
}
