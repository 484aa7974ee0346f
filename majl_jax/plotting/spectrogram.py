"""Pictures of audio: log-frequency spectrograms with pitch tracks, in constant memory."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

LOWEST_HZ = 40.0
BINS = 200
RANGE_DB = 70.0
JUMP_OCTAVES = 1 / 3  # neighbouring frames further apart are not joined by a line
TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)


class Spectrogram:
    """Power on a log-frequency axis, fed block by block; at most `2 * columns` columns."""

    def __init__(self, *, sample_rate_hz: int, columns: int = 1000) -> None:
        self.window_samples = 1 << round(
            np.log2(0.1 * sample_rate_hz)
        )  # ~0.1 s resolves a low voice
        self.hop_samples = self.window_samples // 8
        self.edges_hz = np.geomspace(LOWEST_HZ, sample_rate_hz / 2, BINS + 2)
        self._filters = _triangles(self.edges_hz, self.window_samples, sample_rate_hz)
        self._window = np.hanning(self.window_samples + 1)[:-1].astype(np.float32)
        self._waiting = np.zeros(self.window_samples // 2, np.float32)  # frames are centred
        self._pool = Pool(columns, lambda groups: groups.mean(1))
        self._column_s = self.hop_samples / sample_rate_hz

    def push(self, audio: Float[np.ndarray, "time"]) -> None:
        """Takes the next samples."""
        self._waiting = np.concatenate([self._waiting, audio.astype(np.float32)])
        while len(self._waiting) >= self.window_samples:
            part = self._waiting[: self.window_samples + 255 * self.hop_samples]
            frames = np.lib.stride_tricks.sliding_window_view(part, self.window_samples)
            frames = frames[:: self.hop_samples]
            power = np.abs(np.fft.rfft(frames * self._window)) ** 2
            self._pool.push((power @ self._filters).astype(np.float32))
            self._waiting = self._waiting[len(frames) * self.hop_samples :]

    def finish(self) -> tuple[Float[np.ndarray, "column bin"], float]:
        """Returns the power and the seconds per column."""
        self.push(np.zeros(self.window_samples // 2, np.float32))
        return self._pool.finish(), self._column_s * self._pool.per_column


class Pool:
    """Keeps a growing sequence of rows at most `2 * columns` long: full, it joins neighbours."""

    def __init__(self, columns: int, reduce: Callable[[np.ndarray], np.ndarray]) -> None:
        self.per_column, self._columns, self._reduce = 1, columns, reduce
        self._done: np.ndarray | None = None
        self._waiting: np.ndarray | None = None

    def push(self, rows: Float[np.ndarray, "row value"]) -> None:
        """Takes the next rows; `reduce` maps [group, row, value] to [group, value]."""
        if self._done is None or self._waiting is None:
            self._done = self._waiting = rows[:0]
        waiting = np.concatenate([self._waiting, rows])
        while len(waiting) >= self.per_column:
            groups = min(len(waiting) // self.per_column, 2 * self._columns - len(self._done))
            used = groups * self.per_column
            shape = (groups, self.per_column, *rows.shape[1:])
            self._done = np.concatenate([self._done, self._reduce(waiting[:used].reshape(shape))])
            waiting = waiting[used:]
            if len(self._done) == 2 * self._columns:
                self._done = self._reduce(self._done.reshape(self._columns, 2, *rows.shape[1:]))
                self.per_column *= 2
        self._waiting = waiting

    def finish(self) -> np.ndarray:
        """Returns the columns, the last one made of what was left."""
        if self._done is None or self._waiting is None:
            return np.zeros((0, 0), np.float32)
        if len(self._waiting):
            self._done = np.concatenate([self._done, self._reduce(self._waiting[None])])
            self._waiting = self._waiting[:0]
        return self._done


class PitchTrack:
    """A pitch track of any length for drawing: per column the frame with the highest confidence."""

    def __init__(self, *, frame_s: float, columns: int = 1000) -> None:
        self._pool = Pool(columns, _most_confident)
        self._frame_s = frame_s

    def push(
        self, f0_hz: Float[np.ndarray, "frame"], confidence: Float[np.ndarray, "frame"]
    ) -> None:
        """Takes the next frames; f0_hz 0 = unvoiced."""
        self._pool.push(np.stack([f0_hz, confidence], 1))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns times in seconds and f0 in Hz, NaN where unvoiced."""
        columns = self._pool.finish()
        f0_hz = columns[:, 0] if columns.size else np.zeros(0)
        times_s = np.arange(len(f0_hz)) * self._frame_s * self._pool.per_column
        return times_s, np.where(f0_hz > 0, f0_hz, np.nan)


def _most_confident(groups: np.ndarray) -> np.ndarray:
    voiced_first = groups[..., 1] + (groups[..., 0] > 0)
    return groups[np.arange(len(groups)), np.argmax(voiced_first, 1)]


def _triangles(
    edges_hz: np.ndarray, window_samples: int, sample_rate_hz: int
) -> Float[np.ndarray, "frequency bin"]:
    """Overlapping triangles of unit sum, never narrower than the FFT can resolve."""
    bins_hz = np.fft.rfftfreq(window_samples, 1 / sample_rate_hz)[:, None]
    width_hz = sample_rate_hz / window_samples
    centre = edges_hz[1:-1]
    below = np.maximum(centre - edges_hz[:-2], width_hz)
    above = np.maximum(edges_hz[2:] - centre, width_hz)
    rise, fall = 1 + (bins_hz - centre) / below, 1 - (bins_hz - centre) / above
    weights = np.maximum(0, np.minimum(rise, fall))
    return (weights / weights.sum(0)).astype(np.float32)


def power_to_db(power: np.ndarray, reference: float) -> np.ndarray:
    """10 lg of the power relative to the reference, limited to the displayed range."""
    floor = max(reference, 1e-20) * 10 ** (-RANGE_DB / 10)
    return 10 * np.log10(np.maximum(power, floor) / max(reference, 1e-20))


def figure(width_inch: float, height_inch: float, **kind):
    """A matplotlib figure that needs no display and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width_inch, height_inch), **kind)
    FigureCanvasAgg(made)
    return made


def draw_overview(
    path: pathlib.Path,
    spectrograms: Mapping[str, Spectrogram],
    *,
    title: str,
    pitch: PitchTrack | None = None,
) -> None:
    """Writes a PNG: a spectrogram per signal on one colour scale, the pitch over the last one."""
    powers = {name: spectrogram.finish() for name, spectrogram in spectrograms.items()}
    reference = max(float(power.max(initial=0.0)) for power, _ in powers.values())
    made = figure(13.0, 0.9 + 3.0 * len(powers), layout="constrained")
    axes = made.subplots(len(powers), 1, sharex=True, squeeze=False)[:, 0]
    track = pitch.finish() if pitch is not None else None
    image: Any = None
    for axis, (name, (power, column_s)) in zip(axes, powers.items(), strict=True):
        edges_hz = spectrograms[name].edges_hz
        image = axis.imshow(
            power_to_db(power, reference).T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=-RANGE_DB,
            vmax=0,
            extent=(0, len(power) * column_s, *np.log2(edges_hz[[0, -1]])),
            interpolation="nearest",
        )
        ticks_hz = [hz for hz in TICKS_HZ if edges_hz[0] < hz < edges_hz[-1]]
        axis.set_yticks(np.log2(ticks_hz), [str(hz) for hz in ticks_hz])
        axis.set_ylabel("frequency (Hz)")
        axis.set_title(name, loc="left", fontsize=11)
        if track is not None and axis is axes[-1] and len(track[0]):
            _draw_pitch(axis, *track)
    axes[-1].set_xlabel("time (m:ss)" if axes[-1].get_xlim()[1] >= 60 else "time (s)")
    if axes[-1].get_xlim()[1] >= 60:
        axes[-1].xaxis.set_major_formatter(lambda s, _: f"{int(s) // 60}:{int(s) % 60:02d}")
    made.suptitle(title.replace("$", r"\$"), fontsize=13, x=0.01, ha="left")
    bar = made.colorbar(image, ax=list(axes), pad=0.01, aspect=40 * len(axes) / 2)
    bar.set_label("dB below the loudest point")
    made.savefig(path, format="png", dpi=110)


def _draw_pitch(axis, times_s: np.ndarray, f0_hz: np.ndarray) -> None:
    """A light line with a dark rim: readable on any colour of the map; jumps are not joined."""
    octaves = np.log2(f0_hz)
    jumps = 1 + np.flatnonzero(np.abs(np.diff(octaves)) > JUMP_OCTAVES)
    times_s, octaves = np.insert(times_s, jumps, np.nan), np.insert(octaves, jumps, np.nan)
    for colour, width, label in (("black", 3.2, None), ("#7df9ff", 1.5, "pitch")):
        axis.plot(
            times_s,
            octaves,
            color=colour,
            linewidth=width,
            marker="o",
            markersize=width * 0.8,
            markeredgewidth=0,
            label=label,
        )
    axis.legend(loc="upper right", labelcolor="white", facecolor="black", framealpha=0.6)
