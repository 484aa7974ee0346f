"""Line charts, pitch charts and spectrograms as SVG text; the page's style gives the colours."""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

import numpy as np

from majl_jax.plotting.spectrogram import JUMP_OCTAVES, RANGE_DB, TICKS_HZ, power_to_db

Number = float | int
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 8, 22
MOST_POINTS = 400


@dataclass(frozen=True)
class Series:
    """One line: y None or NaN is a gap. style: a CSS class of the page."""

    name: str
    x: Sequence[Number]
    y: Sequence[Number | None]
    style: str
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels; with `log`, equal ratios are equal distances."""

    low: Number
    high: Number
    first: Number
    last: Number
    log: bool = False
    ticks: list[tuple[Number, str]] = field(default_factory=list)

    def __call__(self, value: Number) -> Number:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        at = math.log(value) if self.log else value
        share = (at - low) / (high - low) if high > low else 0.5
        return self.first + share * (self.last - self.first)


def nice_ticks(low: Number, high: Number, count: int = 5) -> list[tuple[Number, str]]:
    """About `count` round numbers inside [low, high], with their labels."""
    span = high - low
    if not span > 0:
        return [(low, f"{low:.4g}")]
    step = 10 ** math.floor(math.log10(span / count))
    step *= next((m for m in (1, 2, 5) if span / (step * m) <= count + 1), 10)
    first = math.ceil(low / step - 1e-9)
    values = [step * k for k in range(first, math.floor(high / step + 1e-9) + 1)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [(v, _short(v) if abs(v) >= 10_000 else f"{v:.{decimals}f}") for v in values]


def _short(value: Number) -> str:
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _decade_ticks(low: Number, high: Number) -> list[tuple[Number, str]]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    inside = [v for v in values if low <= v <= high]
    if len(inside) > 5:
        inside = [v for v in inside if f"{v:e}".startswith("1")]
    return [(v, f"{v:g}") for v in inside]


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    references: Sequence[tuple[str, Number]] = (),
    mark: tuple[Number, Number] | None = None,
    last_step: Number = 1,
    from_zero: bool = False,
    width: int = 320,
    height: int = 180,
) -> str:
    """Lines over steps; the values' axis is logarithmic where they span decades.

    Args:
        series: the lines.
        title: for who cannot see it.
        references: dashed levels with a name.
        mark: a point to point out.
        last_step: how far the axis reaches at least.
        from_zero: whether the values' axis begins at zero, and so is not logarithmic.
        width: in pixels.
        height: in pixels.
    """
    series = [_thinned(s) for s in series]
    points = [(x, y) for s in series for x, y in zip(s.x, s.y, strict=True) if _finite(y)]
    if not points:
        return _svg(
            width, height, [_text(width / 2, height / 2, "no finite value yet", "middle")], title
        )
    ys = [y for _, y in points] + [level for _, level in references]
    low, high = min(ys + [0] * from_zero), max(ys)
    log = low > 0 and high / low > 30
    pad = 0 if log else 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    xs = [x for x, _ in points]
    x_axis = Axis(min(0, *xs) if len(xs) > 1 else 0, max(*xs, last_step), LEFT, width - RIGHT)
    limits = (low * 0.9, high * 1.1) if log else (low - pad, high + pad)
    y_axis = Axis(*limits, height - BOTTOM, TOP, log=log)
    ticks = _decade_ticks(*limits) if log else nice_ticks(*limits)
    x_ticks = [(v, _short(v)) for v, _ in nice_ticks(x_axis.low, x_axis.high)]
    parts = _grid(x_axis, y_axis, x_ticks, ticks, width, height)
    for name, level in references:
        y = y_axis(level)
        parts.append(_rule("level", LEFT, y, width - RIGHT, y))
        parts.append(_text(width - RIGHT - 2, y - 4, f"{name} {level:.4g}", "end"))
    for one in series:
        parts += _line(one, x_axis, y_axis)
    if mark is not None:
        parts.append(
            f'<circle class="mark" cx="{x_axis(mark[0]):.1f}" cy="{y_axis(mark[1]):.1f}" r="4.5">'
            f"<title>kept checkpoint: step {mark[0]:g}, {mark[1]:.4g}</title></circle>"
        )
    return _svg(width, height, parts, title)


def kept_chart(
    thresholds: Sequence[Number],
    shares: Sequence[Number],
    *,
    used: tuple[Number, Number] | None,
    title: str,
    width: int = 320,
    height: int = 180,
) -> str:
    """The share of labels that each threshold would keep.

    Args:
        thresholds: from 0 to 1.
        shares: what each would keep.
        used: the threshold there was, and what it kept.
        title: for who cannot see it.
        width: in pixels.
        height: in pixels.
    """
    x_axis, y_axis = Axis(0, 1, LEFT, width - RIGHT), Axis(0, 1, height - BOTTOM, TOP)
    x_ticks = [(k / 5, f"{k / 5:.1f}") for k in range(6)]
    y_ticks = [(k / 4, f"{25 * k} %") for k in range(5)]
    parts = _grid(x_axis, y_axis, x_ticks, y_ticks, width, height)
    if used is not None:
        x, y = x_axis(used[0]), y_axis(used[1])
        parts.append(_rule("level", x, TOP, x, height - BOTTOM))
    parts += _line(Series("kept", thresholds, shares, "train"), x_axis, y_axis)
    for threshold, share in zip(thresholds, shares, strict=True):
        said = f"<title>{threshold:g}: {100 * share:.1f} % kept</title>"
        place = f'cx="{x_axis(threshold):.1f}" cy="{y_axis(share):.1f}"'
        parts.append(f'<circle class="train dot" {place} r="2.2">{said}</circle>')
    if used is not None:
        said = f"<title>used: {used[0]:g}, {100 * used[1]:.1f} % kept</title>"
        parts.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{said}</circle>')
    return _svg(width, height, parts, title)


def pitch_chart(series: Sequence[Series], *, seconds: Number, width: int = 1000) -> str:
    """Pitch over time on a logarithmic axis; 0 and NaN are gaps, and jumps are not joined."""
    height = 220
    voiced = [y for s in series for y in s.y if _finite(y) and y > 0]
    if not voiced:
        return _svg(width, 60, [_text(width / 2, 34, "no voiced frame", "middle")], "pitch")
    limits = min(voiced) / 1.06, max(voiced) * 1.06
    x_axis = Axis(0, seconds, LEFT, width - RIGHT)
    y_axis = Axis(*limits, height - BOTTOM, TOP, log=True)
    choices = [round(base * 2.0**k) for k in range(8) for base in (55, 65.41, 82.41)]
    ticks = [(hz, f"{hz:g} Hz") for hz in sorted(choices) if limits[0] < hz < limits[1]]
    while len(ticks) > 6:
        ticks = ticks[::2]
    x_ticks = [(v, f"{t} s") for v, t in nice_ticks(0, seconds, 8)]
    parts = _grid(x_axis, y_axis, x_ticks, ticks, width, height)
    for one in series:
        broken = _broken_at_jumps(one)
        parts += _line(broken, x_axis, y_axis)
    return _svg(width, height, parts, "pitch over time")


def spectrogram(
    power: np.ndarray,
    *,
    seconds: Number,
    edges_hz: np.ndarray,
    reference: Number,
    title: str,
    width: int = 330,
    height: int = 200,
) -> str:
    """A spectrogram.

    Args:
        power: [column, bin].
        seconds: its length.
        edges_hz: of the bins.
        reference: the power shown brightest.
        title: for who cannot see it.
        width: in pixels.
        height: in pixels.
    """
    from matplotlib import colormaps
    from matplotlib.image import imsave

    share = power_to_db(power, reference) / RANGE_DB + 1
    pixels = (colormaps["magma"](share.T[::-1])[..., :3] * 255).astype(np.uint8)
    data = io.BytesIO()
    imsave(data, pixels, format="png")
    source = base64.b64encode(data.getvalue()).decode()
    x_axis = Axis(0, seconds, LEFT, width - RIGHT)
    y_axis = Axis(edges_hz[0], edges_hz[-1], height - BOTTOM, TOP, log=True)
    ticks = [(hz, _short(hz)) for hz in TICKS_HZ if y_axis.low < hz < y_axis.high]
    image = (
        f'<image href="data:image/png;base64,{source}" x="{LEFT}" y="{TOP}" '
        f'width="{width - LEFT - RIGHT}" height="{height - TOP - BOTTOM}" '
        'preserveAspectRatio="none"/>'
    )
    x_ticks = [(v, f"{t} s") for v, t in nice_ticks(0, seconds)]
    return _svg(
        width, height, [image, *_grid(x_axis, y_axis, x_ticks, ticks, width, height)], title
    )


def _finite(value: Number | None) -> TypeGuard[Number]:
    return value is not None and math.isfinite(value)


def _thinned(series: Series) -> Series:
    """At most MOST_POINTS points: means of neighbours, so that no trend is made up."""
    group = math.ceil(len(series.x) / MOST_POINTS)
    if group <= 1:
        return series
    xs, ys = [], []
    for first in range(0, len(series.x), group):
        xs.append(float(np.mean(series.x[first : first + group])))
        kept = [y for y in series.y[first : first + group] if _finite(y)]
        ys.append(float(np.mean(kept)) if kept else None)
    return Series(series.name, xs, ys, series.style, series.dots)


def _broken_at_jumps(series: Series) -> Series:
    xs, ys, before = [], [], None
    for x, y in zip(series.x, series.y, strict=True):
        y = y if y is not None and math.isfinite(y) and y > 0 else None
        if before and y and abs(math.log2(y / before)) > JUMP_OCTAVES:
            xs.append(x)
            ys.append(None)
        xs.append(x)
        ys.append(y)
        before = y
    return Series(series.name, xs, ys, series.style, series.dots)


def _line(series: Series, x_axis: Axis, y_axis: Axis) -> list[str]:
    runs: list[list[str]] = [[]]
    dots = []
    for x, y in zip(series.x, series.y, strict=True):
        if y is None or not math.isfinite(y):
            runs.append([])
            continue
        runs[-1].append(f"{x_axis(x):.1f},{y_axis(y):.1f}")
        if series.dots:
            dots.append(
                f'<circle class="{series.style} dot" cx="{x_axis(x):.1f}" cy="{y_axis(y):.1f}" '
                f'r="2.2"><title>step {x:g}: {y:.5g}</title></circle>'
            )
    style = series.style
    lines = [f'<polyline class="{style}" points="{" ".join(run)}"/>' for run in runs if run[1:]]
    for x, y in (run[0].split(",") for run in runs if len(run) == 1 and not series.dots):
        lines.append(f'<circle class="{style} dot" cx="{x}" cy="{y}" r="2"/>')
    return lines + dots


def _grid(
    x_axis: Axis,
    y_axis: Axis,
    x_ticks: Sequence[tuple[Number, str]],
    y_ticks: Sequence[tuple[Number, str]],
    width: int,
    height: int,
) -> list[str]:
    parts, base, right = [], height - BOTTOM, width - RIGHT
    for value, label in y_ticks:
        y = y_axis(value)
        parts += [_rule("grid", LEFT, y, right, y), _text(LEFT - 5, y + 3.5, label, "end")]
    for value, label in x_ticks:
        x = x_axis(value)
        anchor = "end" if x > right - 8 else "middle"
        parts += [
            _rule("tick", x, base, x, base + 4),
            _text(min(x, width), height - 5, label, anchor),
        ]
    return [*parts, _rule("axis", LEFT, base, right, base)]


def _rule(style: str, x1: Number, y1: Number, x2: Number, y2: Number) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: Number, y: Number, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], title: str) -> str:
    label = html.escape(title, quote=True)
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
    return f"{head}{''.join(parts)}</svg>"
