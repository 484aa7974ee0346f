"""What the numbers of all configs may be, looked at before the first stage of a run trains.

A recipe's `stages` calls `check_ranges` first. Every number of a config has a rule here, also those
of stages that come late or do not run. What depends on several fields the recipe looks at.
"""

import dataclasses
import fnmatch
import math
from collections.abc import Iterator, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; of a tuple, of any depth, each has to be one."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    """`low` itself is not among them."""
    below: bool = False
    """`high` itself is not among them."""
    whole: bool = False
    pair: bool = False
    """Two numbers, the lower one first."""
    note: str = ""

    def __contains__(self, value: Any) -> bool:
        each = list(_each(value))
        if not each or not all(map(self._has, each)):
            return False
        return not self.pair or (len(each) == 2 and each[0] <= each[1])

    def _has(self, number: Any) -> bool:
        kind = int if self.whole else (int, float)
        if not isinstance(number, kind) or isinstance(number, bool) or not math.isfinite(number):
            return False
        if (number == self.low and self.above) or (number == self.high and self.below):
            return False
        return self.low <= number <= self.high

    def __str__(self) -> str:
        kind = "whole number" if self.whole else "number"
        said = [f"two {kind}s", "the lower one first"] if self.pair else [f"a {kind}"]
        if self.low > -math.inf:
            said.append(f"{'above' if self.above else 'at least'} {self.low:g}")
        if self.high < math.inf:
            said.append(f"{'below' if self.below else 'at most'} {self.high:.10g}")
        return ", ".join(said) + f" ({self.note})" * bool(self.note)


Rule = Range | tuple[str, ...]  # numbers, or one of these texts
SIZE, COUNT, AT_LEAST_2 = (Range(least, whole=True) for least in (1.0, 0.0, 2.0))
ANY, NOT_NEGATIVE, POSITIVE = Range(), Range(0.0), Range(0.0, above=True)
FROM_0_TO_1, BELOW_1 = Range(0.0, 1.0), Range(0.0, 1.0, below=True)
ABOVE_0 = Range(0.0, 1.0, above=True)
BETWEEN = Range(0.0, 1.0, above=True, below=True)

# Ends of field names, of RECIPE.FIELD; the first row with one that fits counts.
RULES: tuple[tuple[Rule, str], ...] = (
    (SIZE, "jukebox.optimizer.warmup_steps"),
    (AT_LEAST_2, "mixit.stages.*.warmup_steps decay_from"),
    (Range(0.0, 2.0**32 - 1, whole=True), "seed"),
    (SIZE, "steps batch_size accumulate_steps decay_every *_every_steps keep_last keep_best"),
    (COUNT, "stages.*.labelled stages.*.unlabelled warmup_steps plateau_patience"),
    (POSITIVE, "learning_rate decoder_factor mixture_gain max_snr_db"),
    (dataclasses.replace(NOT_NEGATIVE, note="0: no clipping"), "clip_norm"),
    (NOT_NEGATIVE, "weights.* self_supervised weight_decay pitch_share inactive_weight"),
    (ABOVE_0, "labelled_share decay_factor right_share"),
    (BELOW_1, "overlap *dropout drop_probability norm_momentum average_decay codebook.decay"),
    (BELOW_1, "teacher_decay without_target_share"),
    (BETWEEN, "plateau_factor initial_salience"),
    (FROM_0_TO_1, "*threshold voicing wrong_pitch shift_share others shifted"),
    (Range(0.0, 100.0), "clip_percentile"),
    (SIZE, "clip_history_steps"),
    # data and evaluation
    (SIZE, "sample_rate_hz data.channels hop_samples segment_samples window_samples"),
    (SIZE, "*_excerpts valid_batches window_frames evaluation.average chunk_frames"),
    (COUNT, "*_tracks evaluation.examples distinct_offsets"),
    (ANY, "threshold_db anchor_gain_db"),
    (NOT_NEGATIVE, "majl.augmentation.gain_db"),
    (Range(pair=True), "snr_db gain_db"),
    (Range(0.0, above=True, pair=True), "rates"),
    (POSITIVE, "semitones tolerance_cents"),
    (Range(high=0.0, below=True), "inactive_db"),
    (("frame", "segment", "song"), "granularity"),
    (("coherent", "incoherent"), "transfer.evaluation.mixing"),
    # losses
    (Range(-1.0, 1.0, whole=True), "dwhs.exponents"),
    (Range(1.0, above=True), "middle_weight"),
    (POSITIVE, "largest_increase temperature tolerance_cents positive_weight"),
    (SIZE, "pitch_frames losses.top resolutions"),
    (NOT_NEGATIVE, "target_width_cents l2 linf spectral commit variance spectral_norm"),
    (NOT_NEGATIVE, "percussion_volume shift_octaves sounding_rms active_share deviation"),
    (Range(1.0), "stretch"),
    # networks and front ends
    (("float32", "bfloat16"), "dtype"),
    (SIZE, "*.channels features kernel_size blocks centre_stages layers heads norm_groups"),
    (SIZE, "attention_features hidden outputs bands units embedding width depth halvings latent"),
    (SIZE, "complexity bins bins_per_octave codes"),
    (SIZE, "vqvae.multiplier downs strides dilation_growth"),
    (COUNT, "multiplier"),
    (POSITIVE, "norm_epsilon frame_floor fmin_hz harmonics"),
    (NOT_NEGATIVE, "restart_below"),
)


def check_ranges(config: Any) -> None:
    """ValueError that names, in a line, the fields whose values their rules refuse.

    LookupError for a number without a rule. Of other fields those have one that nothing else looks
    at before training.
    """
    wrong = []
    for field, value in fields(config.to_dict()):
        rule = rule_of(f"{config.recipe}.{field}")
        if rule is None and any(type(one) in (int, float) for one in _each(value)):
            raise LookupError(f"--config.{field} has no rule in majl_jax/recipes/ranges.py: add it")
        if rule is not None and value not in rule:
            wanted = rule if isinstance(rule, Range) else f"one of {', '.join(rule)}"
            wrong.append(f"--config.{field} is {value!r}; expected {wanted}")
    if wrong:
        raise ValueError(". ".join(wrong))


def rule_of(field: str) -> Rule | None:
    """The rule of RECIPE.FIELD; None: it has none."""
    for rule, names in RULES:
        for name in names.split():
            if fnmatch.fnmatchcase(field, name) or fnmatch.fnmatchcase(field, f"*.{name}"):
                return rule
    return None


def fields(group: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Names, with dots, and values of all fields of a config as a dictionary."""
    for name, value in group.items():
        if isinstance(value, Mapping):
            yield from fields(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _each(value: Any) -> Iterator[Any]:
    """What stands in a tuple of any depth, or the value itself."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _each(part)
    else:
        yield value
