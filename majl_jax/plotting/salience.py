"""A picture of a multi-pitch salience, filled frame by frame."""

import pathlib

import numpy as np
from jaxtyping import Float

from majl_jax.plotting import spectrogram

# ---- picture ------------------------------------------------------------------------------------


class Picture:
    """Salience and picked pitches of a track of any length; at most `2 * columns` columns."""

    def __init__(self, *, frame_s: float, columns: int = 1000) -> None:
        self._frame_s = frame_s
        self._salience = spectrogram.Pool(columns, lambda groups: groups.max(1))
        self._picked = spectrogram.Pool(columns, lambda groups: groups.max(1))

    def push(
        self, salience: Float[np.ndarray, "frame bin"], picked: Float[np.ndarray, "frame bin"]
    ) -> None:
        """Takes the next frames; picked is 0 where no pitch is."""
        self._salience.push(salience)
        self._picked.push(picked)

    def draw(
        self,
        path: pathlib.Path,
        bin_hz: Float[np.ndarray, "bin"],
        *,
        title: str,
        truth: Float[np.ndarray, "label 2"] | None = None,
    ) -> None:
        """Writes a PNG: salience on a log-frequency axis, a dot per picked pitch, a ring per true
        one (time in s, Hz).
        """
        salience, picked = self._salience.finish(), self._picked.finish()
        column_s = self._frame_s * self._salience.per_column
        octaves = np.log2(bin_hz)
        half_bin = 0.5 * (octaves[-1] - octaves[0]) / max(len(octaves) - 1, 1)
        bottom, top = octaves[0] - half_bin, octaves[-1] + half_bin
        made = spectrogram.figure(13.0, 5.0, layout="constrained")
        axis = made.subplots()
        image = axis.imshow(
            salience.T,
            origin="lower",
            aspect="auto",
            cmap="magma",
            vmin=0.0,
            vmax=1.0,
            extent=(-0.5 * column_s, (len(salience) - 0.5) * column_s, bottom, top),
            interpolation="nearest",
        )
        column, number = np.nonzero(picked)
        # A light dot with a dark rim is readable on any colour of the map.
        for colour, size, label in (("black", 14, None), ("#7df9ff", 3, "pitches")):
            axis.scatter(
                column * column_s, octaves[number], s=size, color=colour, linewidths=0, label=label
            )
        if truth is not None and len(truth):
            style = {"facecolors": "none", "edgecolors": "white", "linewidths": 0.6}
            axis.scatter(truth[:, 0], np.log2(truth[:, 1]), s=16, label="labels", **style)
        ticks_hz = [hz for hz in spectrogram.TICKS_HZ if bottom < np.log2(hz) < top]
        axis.set_yticks(np.log2(ticks_hz), [str(hz) for hz in ticks_hz])
        axis.set_ylim(bottom, top)
        axis.set_ylabel("frequency (Hz)")
        long = axis.get_xlim()[1] >= 60
        axis.set_xlabel("time (m:ss)" if long else "time (s)")
        if long:
            axis.xaxis.set_major_formatter(lambda s, _: f"{int(s) // 60}:{int(s) % 60:02d}")
        axis.legend(loc="upper right", labelcolor="white", facecolor="black", framealpha=0.6)
        made.suptitle(title.replace("$", r"\$"), fontsize=13, x=0.01, ha="left")
        made.colorbar(image, ax=axis, pad=0.01).set_label("salience")
        made.savefig(path, format="png", dpi=110)
