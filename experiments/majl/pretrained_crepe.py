"""The published CREPE (tiny) on MAJL's test tracks: the mixture, the true voice, separated voices.

    python -m experiments.majl.pretrained_crepe --data=data/prepared/majl_mir1k/mir1k_few \\
        --target=voice --run=runs/experiments/mir1k/joint/seed0 --stages=pipeline,student

It was trained on other data, more than ours, so it is a reference and no rival. Needs the extra
`pretrained`.
"""

import itertools
import pathlib
import sys
from collections.abc import Sequence

from majl_jax import terminal
from majl_jax.datasets import records
from majl_jax.evaluation.rows import text_table, write_rows
from majl_jax.evaluation.target import score_track, take_from_record
from majl_jax.inference.decoding import decode_pitch
from majl_jax.inference.segments import apply_track
from majl_jax.pseudo_labels import labelling
from majl_jax.separate import loading, published

HOP_SAMPLES, RATE_HZ = 320, 16_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Scores, prints the means, and with --output writes the scores of every track."""
    parser = terminal.Parser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="prepared data set")
    parser.add_argument("--target", required=True, help="the stem")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tracks", type=int, help="at most so many")
    parser.add_argument("--run", type=pathlib.Path, help="run whose separated voices are heard too")
    parser.add_argument("--stages", default="student", help="stages of that run")
    parser.add_argument("--output", type=pathlib.Path, help="file for a line of JSON per track")
    options = parser.parse_args(arguments)

    target = labelling.stem_number(records.open_prepared(options.data), options.target)
    crepe, weights, _ = published.pitch(hop_samples=HOP_SAMPLES)
    separators = {
        stage: loading.load_run(options.run, stage=stage)[:2]
        for stage in (options.stages.split(",") if options.run else ())
    }
    rows = []
    tracks = records.read_tracks(options.data, options.split)
    for record in itertools.islice(tracks, options.tracks):
        take = take_from_record(
            record, target=target, channels=1, sample_rate_hz=RATE_HZ, hop_samples=HOP_SAMPLES
        )
        heard = {"mixture": take.mixture, "true voice": take.truth}
        for stage, (separator, variables) in separators.items():
            outputs = apply_track(separator, variables, take.mixture)
            heard[f"separated by {stage}"] = outputs["stems"][:, 0]
        for name, audio in heard.items():
            salience = apply_track(crepe, weights, audio)["salience"]
            found = decode_pitch(salience, crepe.bin_cents)
            estimate = None if name == "true voice" else audio
            rows.append(score_track(take, name, estimate=estimate, pitch=found))
    print(f"CREPE (tiny, published) on the {options.split} split of {options.data}")
    print(text_table(rows))
    if options.output:
        write_rows(options.output, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
