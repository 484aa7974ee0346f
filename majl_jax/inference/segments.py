"""Whole tracks through a model that knows segments: cut, apply, cross-fade.

`stream` is the constant-memory form, `apply_track` the same for a track in memory. Frame k is
centred at sample k * hop_samples.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from majl_jax.inference import context, placement

Outputs = dict[str, np.ndarray]
OUTPUTS = ("stems", "salience")
EDGE_WEIGHT = 1e-6  # of a frame that its segment does not hear whole, against one that is


@dataclasses.dataclass(
    frozen=True, eq=False
)  # compared by identity: `apply` is compiled once per object
class SegmentModel:
    """A trained system as evaluation sees it: a function on segments and the grid it lives on."""

    apply: Callable[[Any, jax.Array], Mapping[str, jax.Array]]
    """(variables, audio[batch, time, channel]) -> {"stems": [batch, time, stem, channel],
    "salience": [batch, frame, bin] in 0..1}, either optional; time is segment_samples, with a
    context also the length of a shorter song.
    """
    sample_rate_hz: int
    segment_samples: int
    hop_samples: int
    channels: int = 1
    stems: tuple[str, ...] = ()
    bin_cents: np.ndarray | None = None
    """Centre of each salience bin in cents above 10 Hz; None when there is no salience."""
    threshold: float = 0.5
    """Confidence that makes a frame voiced."""
    crossfade: bool = True
    """Whether overlapping segments fade into each other; False: the plain mean where they
    overlap.
    """
    context_samples: int = 0
    """What an output depends on at either side of it. Above 0, segments overlap by twice as much
    and give exactly what the song gives in one pass, whatever `overlap` is asked for; `apply` then
    takes other lengths too.
    """
    frame_reach_samples: int = 0
    """What a frame of salience hears at either side of its centre. Segments overlap by twice as
    much at least, and a frame that reaches past an end of its segment is its neighbour's.
    """
    for_song: Callable[[Any, Iterable[np.ndarray]], Any] | None = None
    """(variables, the blocks of a song at the model's rate) -> the variables for this song, if it
    has to be heard first.
    """

    def __post_init__(self) -> None:
        if self.segment_samples % self.hop_samples or self.segment_samples <= 0:
            raise ValueError(
                f"segment_samples is {self.segment_samples}; expected a positive multiple of "
                f"hop_samples = {self.hop_samples}, so that segments join on the frame grid"
            )
        if self.segment_frames <= 2 * self.edge_frames:
            raise ValueError(
                f"segment_samples is {self.segment_samples}; a frame reaches"
                f" {self.frame_reach_samples} samples to either side, so none is heard whole:"
                " expected more than twice that"
            )

    @property
    def segment_frames(self) -> int:
        """Frames in a segment: one per hop, the first centred at sample 0."""
        return self.segment_samples // self.hop_samples

    @property
    def edge_frames(self) -> int:
        """Frames at either end of a segment that reach past it."""
        return -(-self.frame_reach_samples // self.hop_samples)


@dataclasses.dataclass(frozen=True)
class Segmenting:
    """How songs are cut into segments, and how many of them a call of the model takes."""

    overlap: float = 0.5
    """Share of a segment that it has in common with the next, 0 <= overlap < 1."""
    batch_size: int = 8
    """Segments per call."""


SEGMENTING = Segmenting()


def stream(
    model: SegmentModel,
    variables: Any,
    blocks: Iterable[Float[np.ndarray, "_ channel"]],
    *,
    overlap: float = 0.5,
    batch_size: int = 8,
    devices: Sequence[Any] | None = None,
    wanted: Sequence[str] = OUTPUTS,
) -> Iterator[Outputs]:
    """Yields finished stretches of every output, in order, while blocks of any size come in.

    Memory is one batch of segments whatever the length of the track, and every track of every
    length runs the same compiled program (but songs shorter than a segment
    of a model with context): batches are filled up with silent rows whose output is
    dropped. Joined up, the stretches have as many samples as came in and a frame per begun hop.

    Args:
        model: what is applied.
        variables: of the model.
        blocks: of the track at the model's rate, full scale 1, one or more samples each.
        overlap: share of a segment that it has in common with the next, 0 <= overlap < 1.
        batch_size: segments per call of the model.
        devices: of this process; None: all of them.
        wanted: which of the model's outputs are computed.
    """
    step_samples = step_of(model, overlap)
    used = placement.dividing(batch_size, devices)
    program = _program(model, used, frozenset(wanted))
    variables = placement.everywhere(variables, used)
    if model.context_samples:
        yield from _stream_in_context(model, program, variables, blocks, batch_size)
        return
    window = window_of(model.segment_samples, step_samples, crossfade=model.crossfade)
    samples = _OverlapAdd(window, step_samples)
    frames = _OverlapAdd(
        samples.window[:: model.hop_samples],
        step_samples // model.hop_samples,
        edge=model.edge_frames,
    )
    queue = segments_of(blocks, model, step_samples)
    while part := list(itertools.islice(queue, batch_size)):
        rows = np.zeros((batch_size, model.segment_samples, model.channels), np.float32)
        for row, (segment, _) in zip(rows, part, strict=False):
            row[: len(segment)] = segment
        outputs = {name: np.asarray(value) for name, value in program(variables, rows).items()}
        _check_outputs(model, outputs, batch_size, wanted)
        finished: dict[str, list[np.ndarray]] = {name: [] for name in outputs}
        for index, (segment, last) in enumerate(part):
            if "stems" in outputs:
                finished["stems"] += samples.add(outputs["stems"][index], len(segment), last)
            if "salience" in outputs:
                valid_frames = -(-len(segment) // model.hop_samples)
                finished["salience"] += frames.add(outputs["salience"][index], valid_frames, last)
        yield {name: np.concatenate(pieces) for name, pieces in finished.items()}


def _stream_in_context(
    model: SegmentModel,
    program: Any,
    variables: Any,
    blocks: Iterable[np.ndarray],
    batch_size: int,
) -> Iterator[Outputs]:
    pieces = context.pieces(
        _checked(blocks, model),
        segment_samples=model.segment_samples,
        context_samples=model.context_samples,
        hop_samples=model.hop_samples,
    )
    while part := list(itertools.islice(pieces, batch_size)):
        samples = len(part[0].audio)  # less than a segment where the song is
        rows = np.zeros((batch_size, samples, model.channels), np.float32)
        for row, piece in zip(rows, part, strict=False):
            row[:] = piece.audio
        stems = np.asarray(program(variables, rows)["stems"])
        kept = [made[piece.kept] for made, piece in zip(stems, part, strict=False)]
        yield {"stems": np.concatenate(kept)}


def apply_track(
    model: SegmentModel,
    variables: Any,
    audio: Float[np.ndarray, "time channel"],
    *,
    overlap: float = 0.5,
    batch_size: int = 8,
    devices: Sequence[Any] | None = None,
) -> Outputs:
    """Returns the outputs for a whole track: stems [time, stem, channel], salience [frame, bin].

    Args:
        model: what is applied.
        variables: of the model.
        audio: the track at the model's rate, full scale 1.
        overlap: share of a segment that it has in common with the next, 0 <= overlap < 1.
        batch_size: segments per call of the model.
        devices: of this process; None: all of them.
    """
    parts = list(
        stream(model, variables, [audio], overlap=overlap, batch_size=batch_size, devices=devices)
    )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def step_of(model: SegmentModel, overlap: float) -> int:
    """Samples from the start of a segment to that of the next."""
    if not 0.0 <= overlap < 1.0:
        raise ValueError(f"overlap is {overlap}; expected a share of the segment in [0, 1)")
    step_frames = max(1, round(model.segment_frames * (1.0 - overlap)))
    step_frames = min(step_frames, model.segment_frames - 2 * model.edge_frames)
    return step_frames * model.hop_samples


def window_of(
    segment_samples: int, step_samples: int, *, crossfade: bool = True
) -> Float[np.ndarray, "time"]:
    """Flat with sin^2 flanks as long as the overlap: two add up to one, none reaches zero."""
    if not crossfade:
        return np.ones(segment_samples, np.float32)
    fade_samples = min(segment_samples - step_samples, segment_samples // 2)
    window = np.ones(segment_samples)
    flank = np.sin(0.5 * np.pi * (np.arange(fade_samples) + 0.5) / max(fade_samples, 1)) ** 2
    window[:fade_samples] = flank
    window[segment_samples - fade_samples :] = flank[::-1]
    return window.astype(np.float32)


def weights_of(
    window: Float[np.ndarray, "entry"], *, edge: int, first: bool, last: bool
) -> Float[np.ndarray, "entry"]:
    """The window of a piece, whose first and last `edge` entries count next to nothing, but at the
    start of the first piece and at the end of the last.
    """
    found = window.copy()
    if edge and not first:
        found[:edge] *= EDGE_WEIGHT
    if edge and not last:
        found[-edge:] *= EDGE_WEIGHT
    return found


class _OverlapAdd:
    """Weighted mean of overlapping pieces; hands out what no later piece can reach."""

    def __init__(self, window: np.ndarray, step: int, *, edge: int = 0) -> None:
        self.window, self.step, self.edge = window, step, edge
        self.weight = np.zeros_like(window)
        self.total: np.ndarray | None = None

    def add(self, piece: np.ndarray, valid: int, last: bool) -> list[np.ndarray]:
        """Adds the next piece, whose first `valid` entries are real; returns what is finished."""
        window = weights_of(self.window, edge=self.edge, first=self.total is None, last=last)
        if self.total is None:
            self.total = np.zeros(piece.shape, np.float32)
        self.total += piece * window.reshape(-1, *[1] * (piece.ndim - 1))
        self.weight += window
        mean = self.total[:valid] / self.weight[:valid].reshape(-1, *[1] * (piece.ndim - 1))
        if last:
            return [mean]
        for array in (self.total, self.weight):  # move on by one step
            array[: -self.step] = array[self.step :].copy()
            array[-self.step :] = 0.0
        return [mean[: self.step].copy()]


def segments_of(
    blocks: Iterable[np.ndarray], model: SegmentModel, step_samples: int
) -> Iterator[tuple[np.ndarray, bool]]:
    """Yields (segment, is_last), one step apart; only the last may be short."""
    waiting = np.zeros((0, model.channels), np.float32)
    for block in _checked(blocks, model):
        waiting = np.concatenate([waiting, block])
        first = 0
        while (
            len(waiting) - first > model.segment_samples
        ):  # '>': the last segment must be known as such
            yield waiting[first : first + model.segment_samples], False
            first += step_samples
        waiting = waiting[first:]
    if not len(waiting):
        raise ValueError("the track has no samples: nothing to apply the model to")
    yield waiting, True


def _checked(blocks: Iterable[np.ndarray], model: SegmentModel) -> Iterator[np.ndarray]:
    for block in blocks:
        if block.ndim != 2 or block.shape[1] != model.channels:
            raise ValueError(
                f"audio has shape {block.shape}; the model expects [time, {model.channels}]: "
                "mix channels down or repeat them first"
            )
        yield block


def _check_outputs(
    model: SegmentModel, outputs: Outputs, batch_size: int, wanted: Sequence[str]
) -> None:
    """Catches outputs that do not lie on the declared grid before they are joined wrongly."""
    bins = 0 if model.bin_cents is None else len(model.bin_cents)
    expected = {
        "stems": (batch_size, model.segment_samples, len(model.stems), model.channels),
        "salience": (batch_size, model.segment_frames, bins),
    }
    declared = {"stems"} if model.stems else set()
    declared |= {"salience"} if bins else set()
    if missing := declared.intersection(wanted) - set(outputs):
        raise ValueError(f"the segment model declares {sorted(declared)}, but gives no {missing}")
    for name, value in outputs.items():
        if name not in expected:
            raise ValueError(
                f"the segment model returned '{name}'; expected only {sorted(expected)}"
            )
        if value.shape != expected[name]:
            raise ValueError(
                f"the segment model returned {name} of shape {value.shape}; its declared grid "
                f"asks for {expected[name]} (stems: [batch, time, stem, channel]; "
                "salience: [batch, frame, bin])"
            )


@functools.lru_cache(maxsize=16)
def _program(model: SegmentModel, devices: placement.Devices, wanted: frozenset[str]) -> Any:
    """The compiled segment function over `devices`, without what only other outputs need."""

    def apply(variables: Any, audio: jax.Array) -> dict[str, jax.Array]:
        left_out = set(OUTPUTS) - wanted
        return {k: v for k, v in model.apply(variables, audio).items() if k not in left_out}

    return placement.by_rows(apply, devices, whole=1, rows=1)
