"""The data set `modules`: whether stems sum to the mixture, whose stems are known, and how far the
pitches that patterns say agree with the sound.

    python -m benchmarks modules --source=/ --json=modules.jsonl

Of each module a line: what its stems leave of the mixture as libopenmpt plays it, in dB; the share
of energy of samples whose stem is unsure; the channels' frames that sound, those with a pitch by
the patterns, and how many of these YIN on the channel alone finds within 50 cents; the notes, and
those of which most frames agree; the mixture's frames, those in which all pitches are labels, and
those of them with a pitch. Then a table of sums by kind of module. The exit code is 1 where stems
leave more than -100 dB.
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np

from majl_jax.audio import module_files
from majl_jax.datasets import module_notes
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import modules

STEREO, LABELS = Grid(44_100, 441, 2), Grid(16_000, 320)
MOST_DB = -100.0
# A note is counted that sounds in so many frames.
FEWEST_FRAMES = 3


def sums(data: bytes, file: module_files.ModuleFile) -> dict[str, float]:
    """What the stems leave of the mixture in dB, and the share of energy that is unsure."""
    mixture = modules.render(data, file, range(len(file.samples)), grid=STEREO)
    groups, unsure = modules.groups_of(data, file, "", view="stems")
    total, energies = np.zeros(mixture.shape), []
    for group in [*groups, unsure]:
        stem = modules.render(data, file, group, grid=STEREO)
        total += stem
        energies.append(np.sum(np.square(stem, dtype=np.float64)))
    left = np.sum(np.square(mixture - total)) / np.sum(np.square(mixture, dtype=np.float64))
    return {
        "left_db": float(10 * np.log10(left + 1e-30)),
        "unsure": float(energies[-1] / sum(energies)),
    }


def pitches(data: bytes, file: module_files.ModuleFile, seconds: float) -> dict[str, Any]:
    """How many frames and notes have the pitch that the patterns say, and the labelled share."""
    frames = LABELS.frame_count(int(seconds * LABELS.sample_rate_hz))
    checked = module_notes.check(data, file, grid=LABELS, frames=frames)
    said = checked.sounds & ~checked.drums & (checked.f0_hz > 0)
    agrees = said & checked.agrees
    notes = noted = 0
    for channel in range(said.shape[1]):
        begins = np.flatnonzero(np.diff(checked.struck[:, channel], prepend=-2))
        counts = [np.add.reduceat(one[:, channel].astype(int), begins) for one in (said, agrees)]
        heard = counts[0] >= FEWEST_FRAMES
        notes, noted = notes + heard.sum(), noted + (heard & (2 * counts[1] > counts[0])).sum()
    f0_hz, has_pitch = checked.labels(modules.MIXTURE_VOICES)
    known = has_pitch[:, 0]
    return {
        "sounding": int((checked.sounds & ~checked.drums).sum()),
        "frames": int(said.sum()),
        "frames_agree": int(agrees.sum()),
        "notes": int(notes),
        "notes_agree": int(noted),
        "mixture_frames": len(known),
        "labelled": int(known.sum()),
        "labelled_pitched": int((known & (f0_hz > 0).any(axis=1)).sum()),
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("--source", default="/", help="where the packages are")
    parser.add_argument("--json", type=pathlib.Path, help="a line of each module is added to it")
    parser.add_argument("--tracks", type=int, help="so many, drawn, in place of all")
    parser.add_argument("--only", choices=("sums", "pitches"), help="default: both")


def run(options: argparse.Namespace) -> int:
    """Measures every module that is there."""
    rows = [one for one in modules.listed() if not one.left_out]
    found = [(one, modules.find(pathlib.Path(options.source), one)) for one in rows]
    found = [(one, path) for one, path in found if path is not None]
    if not found:
        raise modules.copy().nothing(pathlib.Path(options.source))
    if options.tracks:
        np.random.default_rng(0).shuffle(found)
        found = found[: options.tracks]
    lines = []
    for one, path in found:
        data = path.read_bytes()
        file = module_files.read(data, str(path))
        data = module_files.steady(data)
        told = {"id": one.id, "kind": file.kind, "split": one.split, "seconds": one.seconds}
        if options.only != "pitches":
            told |= sums(data, file)
        if options.only != "sums":
            told |= pitches(data, file, one.seconds)
        print(*(f"{value:.3g}" if isinstance(value, float) else value for value in told.values()))
        if options.json:
            with options.json.open("a", encoding="utf-8") as kept:
                kept.write(json.dumps(told) + "\n")
        lines.append(told)
    if options.only != "sums":
        print(table(lines))
    if options.only == "pitches":
        return 0
    worst = max(line["left_db"] for line in lines)
    print(f"{len(lines)} modules; the worst sum leaves {worst:.1f} dB")
    return int(worst > MOST_DB)


def table(lines: list[dict[str, Any]]) -> str:
    """How far patterns and sound agree, by kind of module: shares of sums over modules."""
    kinds = sorted({line["kind"] for line in lines})
    rows = [
        "| | modules | sounding frames with a pitch | of these agree | notes that agree "
        "| mixture's frames that are labels | labels with a pitch |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in [*kinds, "all"]:
        of = [line for line in lines if kind in (line["kind"], "all")]
        total = {
            name: sum(line[name] for line in of)
            for name in lines[0]
            if name not in ("id", "kind", "split")
        }
        shares = [
            f"{100 * total[part] / max(total[whole], 1):.0f} %"
            for part, whole in (
                ("frames", "sounding"),
                ("frames_agree", "frames"),
                ("notes_agree", "notes"),
                ("labelled", "mixture_frames"),
                ("labelled_pitched", "mixture_frames"),
            )
        ]
        shares[2] = f"{total['notes_agree']} of {total['notes']} ({shares[2]})"
        rows.append(f"| {kind} | {len(of)} | " + " | ".join(shares) + " |")
    return "\n".join(rows)
