"""What scores and terms are called on a page, and how their numbers are written."""

import math
from collections.abc import Iterable
from typing import NamedTuple

NOTHING = "\N{EN DASH}"
MINUS_INFINITY = "\N{MINUS SIGN}\N{INFINITY}"


class Metric(NamedTuple):
    """How a score is shown."""

    label: str
    meaning: str
    factor: float = 1
    digits: int = 2
    higher_is_better: bool | None = True
    """None: neither higher nor lower is."""


SEPARATION = {
    "sdr_db": Metric("SDR dB", "global signal-to-distortion ratio"),
    "nsdr_db": Metric("NSDR dB", "SDR gained over the untouched mixture"),
    "si_sdr_db": Metric("SI-SDR dB", "scale-invariant SDR"),
    "usdr_db": Metric("uSDR dB", "utterance-level SDR"),
    "usdr_channels_db": Metric("uSDR dB, channels", "utterance-level SDR, the mean of channels"),
    "csdr_db": Metric("cSDR dB", "chunk-level SDR: BSS Eval v4, median of 1 s windows"),
    "sdr_v4_db": Metric("SDRv4 dB", "BSS Eval v4, median of 1 s windows"),
    "isr_v4_db": Metric("ISRv4 dB", "BSS Eval v4, image to spatial distortion"),
    "sir_v4_db": Metric("SIRv4 dB", "BSS Eval v4, source to interference"),
    "sar_v4_db": Metric("SARv4 dB", "BSS Eval v4, sources to artefacts"),
}
PITCH = {
    "rpa": Metric("RPA %", "raw pitch accuracy; frames estimated as unvoiced are wrong", 100, 1),
    "rca": Metric("RCA %", "raw chroma accuracy; frames estimated as unvoiced are wrong", 100, 1),
    "oa": Metric("OA %", "overall accuracy", 100, 1),
    "vr": Metric("VR %", "voicing recall", 100, 1),
    "vfa": Metric("VFA %", "voicing false alarm; lower is better", 100, 1, False),
    "f1": Metric("F1 %", "frame-wise F1 of all pitches, within half a semitone", 100, 1),
    "f1_tuned": Metric("F1* %", "F1 at the threshold that was best on validation tracks", 100, 1),
    "average_precision": Metric("AP %", "average precision: no threshold, skill alone", 100, 1),
    "contrast": Metric(
        "contrast",
        "loudest bin above the median one, in logits; 0: blank output",
        higher_is_better=None,
    ),
    "precision": Metric("P %", "precision of the pitches", 100, 1),
    "recall": Metric("R %", "recall of the pitches", 100, 1),
    "accuracy": Metric("Acc %", "right pitches over right, missed and wrong ones", 100, 1),
    "polyphony": Metric("pitches", "estimated per frame", higher_is_better=None),
    "activation_mass": Metric(
        "activity", "sum of the salience per frame; 0: blank output", higher_is_better=None
    ),
    "silent_share": Metric(
        "silent %", "sounding frames without a pitch; lower is better", 100, 1, False
    ),
    "rpa_mirex": Metric("RPA* %", "raw pitch accuracy, guesses in unvoiced frames count", 100, 1),
    "rca_mirex": Metric("RCA* %", "raw chroma accuracy, guesses in unvoiced frames count", 100, 1),
}
TUNED = {
    f"{name}_tuned": PITCH[name]._replace(
        label=PITCH[name].label.replace(" %", " tuned %"),
        meaning=f"{PITCH[name].meaning}; at the threshold that was best on validation tracks",
    )
    for name in ("rpa", "rca", "oa", "vr", "vfa", "precision", "recall")
}
METRICS = {**SEPARATION, **PITCH, **TUNED}
TERMS = {
    "grad_norm": "norm of the gradient",
    "clip_norm": "norm that gradients are clipped at",
    "learning_rate": "learning rate",
    "steps_per_s": "steps per second",
    "minus_loss": "loss, times \N{MINUS SIGN}1",
    "sdr_plus_rpa": "SDR dB + RPA %",
    "pitch_on_target": "pitch loss on the true stem",
    "pitch": "pitch loss",
    "separation": "separation loss",
    "interface_cosine": "pitch and separation gradient: cosine",
    "interface_grad_pitch": "pitch gradient at the estimate: norm",
    "interface_grad_separation": "separation gradient at the estimate: norm",
    "interface_pitch_factor": "factor of the pitch gradient",
}
_KINDS = {"_mean": "", "_std": ", standard deviation", "_median": ", median"}


def metric(name: str) -> Metric:
    """How this score is shown; of one that is not known, by its key in words."""
    return METRICS.get(name) or Metric(name.replace("_", " "), name, 1, 3, None)


def term(key: str) -> str:
    """A term of the log in words; the key of one that is not known, with spaces."""
    for kind, words in _KINDS.items():
        if key.endswith(kind) and key.removesuffix(kind) in METRICS:
            return METRICS[key.removesuffix(kind)].label + words
    if key in TERMS or key in METRICS:
        return TERMS.get(key) or METRICS[key].label
    return key.replace("_", " ")


def factor(key: str) -> float | int:
    """What values of a term are multiplied by, to be in the unit that `term` says."""
    base = next((k for k in _KINDS if k and key.endswith(k)), "")
    found = METRICS.get(key) or METRICS.get(key.removesuffix(base))
    return found.factor if found else 1


def by_stem(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """{stem: {score: its name for this stem}} of scores such as sdr_db_vocals, where sdr_db is
    known.
    """
    names = list(names)
    found: dict[str, dict[str, str]] = {}
    for name in names:
        if name in METRICS:
            continue
        bases = [one for one in {*METRICS, *names} if name.startswith(f"{one}_")]
        # A stem may begin as another does: sdr_db_voice_lead is no sdr_db_voice of "lead".
        bases = [one for one in bases if one in METRICS] or bases
        if bases:
            base = max(bases, key=len)
            found.setdefault(name.removeprefix(f"{base}_"), {})[base] = name
    return found


def shown(name: str, value: float | int | None) -> str:
    """A score as text."""
    how = metric(name)
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return MINUS_INFINITY if value < 0 else MINUS_INFINITY[1:]
    return f"{value * how.factor:.{how.digits}f}".replace("-", "\N{MINUS SIGN}")
