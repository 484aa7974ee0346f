"""The examples of a run as HTML: spectrograms and players of mixture, estimate and truth, and
pitch.
"""

import base64
import csv
import io
import math
import os
import pathlib
import urllib.parse
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from majl_jax.audio import files
from majl_jax.plotting import spectrogram
from majl_jax.report import page, svg

MOST_EXAMPLES = 8


Link = Callable[[pathlib.Path], str]
"""What a page finds a file by."""


def beside(folder: pathlib.Path) -> Link:
    """Paths as a page in this folder has them."""

    def link(path: pathlib.Path) -> str:
        relative = os.path.relpath(path, folder)
        return urllib.parse.quote(pathlib.PurePath(relative).as_posix())

    return link


def embedded(path: pathlib.Path) -> str:
    """The file itself, as a part of the page; sound as FLAC, which is half as large."""
    if path.suffix != ".wav":
        return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    import soundfile

    audio, rate_hz = soundfile.read(path, dtype="int16", always_2d=True)
    packed = io.BytesIO()
    soundfile.write(packed, audio, rate_hz, format="FLAC")
    return f"data:audio/flac;base64,{base64.b64encode(packed.getvalue()).decode()}"


def examples(stages: Sequence[str], workdir: pathlib.Path, link: Link) -> list[str]:
    """The first examples of every stage, those of the last stage unfolded."""
    parts: list[str] = []
    for stage in reversed(stages):
        folders = sorted(p for p in (workdir / stage / "examples").glob("*") if p.is_dir())
        if not folders:
            continue
        shown = "".join(_example(folder, link) for folder in folders[:MOST_EXAMPLES])
        if len(folders) > MOST_EXAMPLES:
            rest = len(folders) - MOST_EXAMPLES
            shown += f'<p class="note">{rest} more in {page.text(stage)}/examples.</p>'
        title = f"{stage}: {len(folders)} example{'s' * (len(folders) > 1)}"
        parts.insert(0, page.details(title, shown, open_=not parts))  # the last stage is open
    if not parts:
        return ['<p class="note">No examples have been written yet.</p>']
    return [
        '<p class="note">A stretch of a track; of one with a true stem, where that is loudest. Its '
        "spectrograms share one colour scale.</p>",
        *parts,
    ]


def _example(folder: pathlib.Path, link: Link) -> str:
    sounds, faults = {}, {}
    names = sorted(path.stem for path in folder.glob("*.wav"))
    for name in sorted(names, key=lambda name: name != "mixture"):
        path = folder / f"{name}.wav"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", files.AudioFileWarning)  # seen in the picture
            try:
                sounds[name] = files.read(path, channels=1, allow_truncated=True)
            except files.AudioFileError as error:
                faults[name] = str(error)
    pictured = {name: _spectrogram(*sound) for name, sound in sounds.items()}
    reference = max((float(p[0].max()) for p in pictured.values()), default=1.0)
    figures = []
    for name, (power, edges_hz) in pictured.items():
        audio, rate_hz = sounds[name]
        picture = svg.spectrogram(
            power,
            seconds=len(audio) / rate_hz,
            edges_hz=edges_hz,
            reference=reference,
            title=f"{folder.name}: {name}",
        )
        source = page.text(link(folder / f"{name}.wav"))
        said = page.text(f"{folder.name}: {name}")
        player = f'<audio controls preload="none" src="{source}" aria-label="{said}"></audio>'
        figures.append(page.figure(name, picture + player))
    figures += [page.figure(n, f'<p class="note">{page.text(f)}</p>') for n, f in faults.items()]
    below = _pitch(folder / "pitch.csv")
    if (folder / "picture.png").is_file():
        source = page.text(link(folder / "picture.png"))
        picture = f'<img src="{source}" alt="pitches of {page.text(folder.name)}" width="100%">'
        below += page.figure("pitches", picture)
    return (
        f'<section class="example"><h3>{page.text(folder.name)}</h3>'
        f'<div class="three">{"".join(figures)}</div>{below}</section>'
    )


def _spectrogram(audio: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
    picture = spectrogram.Spectrogram(sample_rate_hz=rate_hz, columns=300)
    picture.push(audio[:, 0])
    return picture.finish()[0], picture.edges_hz


def _pitch(path: pathlib.Path) -> str:
    if not path.is_file():  # not every system hears pitch
        return ""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                {k: float(v) if v else math.nan for k, v in r.items()} for r in csv.DictReader(file)
            ]
        times = [row["time"] for row in rows]
        truth, estimate = ([row[k] for row in rows] for k in ("truth_hz", "estimate_hz"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return '<p class="note">There is no readable pitch.csv.</p>'
    if not times:
        return ""
    chart = svg.pitch_chart(
        [
            svg.Series("truth", times, truth, "truth"),
            svg.Series("estimate", times, estimate, "estimate"),
        ],
        seconds=max(times[-1], 1e-3),
    )
    key = (
        '<span class="key truth"></span>truth &nbsp; <span class="key estimate"></span>estimate, '
        "where its confidence makes it voiced"
    )
    return page.wide_figure("pitch", chart, key)
