"""Crops per second of the input, from shards (tf.data) and from memory, beside what a step needs.

    python benchmarks/input_pipeline.py --step_ms=900 --batch=8
    python benchmarks/input_pipeline.py --data=data/prepared/chorales

Without --data it writes made-up records (four stems, 16 kHz, mono) into a temporary folder.
`ratio` is crops per second over the need, batch / step time: above 1 the input never holds up the
step, as long as it has a core of its own.
"""

import argparse
import pathlib
import tempfile
import time

import numpy as np

from majl_jax.datasets import builder, memory, pipeline, records

LAYOUT = records.Layout(
    stems=("soprano", "alto", "tenor", "bass"),
    channels=1,
    sample_rate_hz=16000,
    hop_samples=320,
    record_samples=192000,
)
SEGMENT_FRAMES = (128, 300)  # 2.56 s and 6 s


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, help="a prepared data set")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--step_ms", type=float, default=500.0, help="of the model that is fed")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured, per row")
    parser.add_argument("--records", type=int, default=64, help="made-up ones, 1.5 MB each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = arguments.data or write_noise(pathlib.Path(folder) / "noise", arguments.records)
        need = arguments.batch / arguments.step_ms * 1000
        print(f"a step of {arguments.step_ms:g} ms with {arguments.batch} crops needs {need:.1f}/s")
        print(
            f"{'source':<10}{'segment':>10}{'crops/s':>10}{'MB/s':>8}{'ms/batch':>10}{'ratio':>8}"
        )
        for frames in SEGMENT_FRAMES:
            for name, module in (("tf.data", pipeline), ("memory", memory)):
                hop_samples = records.open_prepared(directory).layout.hop_samples
                batches = module.open_batches(
                    [(str(directory), arguments.split, 1.0)],
                    batch_size=arguments.batch,
                    segment_samples=frames * hop_samples,
                    seed=0,
                )
                crops_per_s, mb_per_s = measure(batches, arguments.batch, arguments.seconds)
                batch_ms = 1000 * arguments.batch / crops_per_s
                print(
                    f"{name:<10}{frames:>4} frames{crops_per_s:>9.0f}{mb_per_s:>8.0f}"
                    f"{batch_ms:>10.2f}{crops_per_s / need:>8.1f}",
                    flush=True,
                )


def write_noise(directory: pathlib.Path, count: int) -> pathlib.Path:
    """A data set of noise."""
    rng = np.random.default_rng(0)

    def made():
        for number in range(count):
            record = {key: np.ones(shape, dtype) for key, (shape, dtype) in LAYOUT.arrays().items()}
            record["stems"] = rng.integers(-9999, 9999, record["stems"].shape, np.int16)
            samples = LAYOUT.record_samples
            yield {**record, "track": str(number), "start_sample": 0, "valid_samples": samples}

    builder.write_dataset(directory, {"train": made()}, layout=LAYOUT)
    return directory


def measure(batches, batch_size: int, seconds: float) -> tuple[float, float]:
    """Crops and megabytes of audio per second, after a few batches to warm up."""
    for _ in range(5):
        next(batches)
    started, count, size = time.perf_counter(), 0, 0
    while time.perf_counter() - started < seconds:
        size += next(batches)["stems"].nbytes
        count += batch_size
    elapsed = time.perf_counter() - started
    return count / elapsed, size / elapsed / 1e6


if __name__ == "__main__":
    main()
