"""Labelled voices in music that nothing was trained on: each in a stretch of another piece, both
equally loud; what models separate and hear there.

    python -m experiments.majl.other_music --voices=data/prepared/mir1k \\
        --music=data/prepared/debian_music --models=voice,runs/voice --split=valid

The split is that of both sets. Which stretch a voice gets is drawn, alike for all models. Voice and
music do not belong together, so this is easier than a song in one respect (no common harmony or
rhythm) and says nothing of singing in another style.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments import rates
from majl_jax import terminal
from majl_jax.datasets import records
from majl_jax.evaluation.rows import text_table, write_rows
from majl_jax.evaluation.take import Take, take_from_record
from majl_jax.evaluation.target import score_track
from majl_jax.inference.decoding import decode_pitch
from majl_jax.inference.segments import apply_track
from majl_jax.pseudo_labels import labelling
from majl_jax.separate import loading

SILENT_POWER = 1e-8  # -80 dB: a stretch below it is drawn again
TRIES = 100


def takes(
    voices: pathlib.Path, music: pathlib.Path, split: str, *, target: int, grid: dict[str, int]
) -> Iterator[Take]:
    """The tracks of a split, whose voices stand in stretches of the music of that split."""
    rng = np.random.default_rng(0)
    tracks = records.read_tracks(music, split)
    pieces = [take_from_record(record, target=0, **grid).mixture for record in tracks]
    for record in records.read_tracks(voices, split):
        take = take_from_record(record, target=target, **grid)
        backing = _stretch(pieces, len(take.truth), rng)
        gain = np.sqrt(np.mean(take.truth**2) / np.mean(backing**2))
        yield dataclasses.replace(take, mixture=take.truth + gain * backing)


def _stretch(pieces: Sequence[np.ndarray], samples: int, rng: np.random.Generator) -> np.ndarray:
    """A stretch of one of the pieces that are long enough, which sounds; ValueError where none is
    found.
    """
    longer = [piece for piece in pieces if len(piece) >= samples]
    for _ in range(TRIES * bool(longer)):
        piece = longer[rng.integers(len(longer))]
        first = int(rng.integers(len(piece) - samples + 1))
        found = piece[first : first + samples]
        if np.mean(found**2) > SILENT_POWER:
            return found
    raise ValueError(f"no piece of --music sounds for {samples} samples, as long as a voice is")


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores, prints the means, and with --output writes the scores of every track."""
    parser = terminal.Parser(description=__doc__)
    parser.add_argument("--voices", type=pathlib.Path, required=True, help="set with stem and f0")
    parser.add_argument("--music", type=pathlib.Path, required=True, help="set without voices")
    parser.add_argument("--models", required=True, help="names, files or runs, with commas")
    parser.add_argument("--target", default="voice", help="the stem")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--output", type=pathlib.Path, help="file for a line of JSON per track")
    options = parser.parse_args(arguments)

    voices, music = map(records.open_prepared, (options.voices, options.music))
    target = labelling.stem_number(voices, options.target)
    models: dict[str, Any] = {name: loading.find(name) for name in options.models.split(",")}
    layouts = {
        f"--voices={options.voices}": voices.layout,
        f"--music={options.music}": music.layout,
    }
    rates.check({**layouts, **{f"the model {name}": found[0] for name, found in models.items()}})
    first = next(iter(models.values()))[0]
    grid = {
        "channels": first.channels,
        "sample_rate_hz": first.sample_rate_hz,
        "hop_samples": first.hop_samples,
    }
    rows = []
    for take in takes(options.voices, options.music, options.split, target=target, grid=grid):
        for name, (model, variables, _) in models.items():
            found = apply_track(model, variables, take.mixture)
            pitch = decode_pitch(found["salience"], model.bin_cents)
            rows.append(score_track(take, name, estimate=found["stems"][:, 0], pitch=pitch))
    print(f"voices of {options.voices} in {options.music}, split {options.split}")
    print(text_table(rows))
    if options.output:
        write_rows(options.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
