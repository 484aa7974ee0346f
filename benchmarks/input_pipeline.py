"""Crops per second of the input, from shards and from memory, and what accelerators ask of a host.

    python -m benchmarks input_pipeline
    python -m benchmarks input_pipeline --data=data/prepared/chorales --step_ms=205 \\
        --crop_seconds=2.56

Without --data it writes made-up records of 12 s with four stems, 16 kHz mono and 44.1 kHz stereo,
into a temporary folder. `CPU ms` is the time that all threads together take for a crop; `ratio` is
crops per second over the need, batch / step time: above 1 the input never holds up the step. The
second table is on paper: crops and bytes per second of so many accelerators that take `--step_ms`
for a batch of `--batch` each, and the cores that tf.data (shards) takes for them at the measured
CPU time per crop.
"""

import argparse
import dataclasses
import pathlib
import tempfile
import time

import numpy as np

from benchmarks.harness import measuring
from majl_jax.datasets import builder, records
from majl_jax.datasets.input import memory, tf_data

MONO = records.Layout(
    stems=("bass", "drums", "other", "vocals"),
    channels=1,
    sample_rate_hz=16_000,
    hop_samples=320,
    record_samples=600 * 320,
)
STEREO = dataclasses.replace(
    MONO, channels=2, sample_rate_hz=44_100, hop_samples=441, record_samples=1200 * 441
)
MADE_UP = {"mono": MONO, "stereo": STEREO}
ACCELERATORS = (8, 64, 512)
PER_HOST = 8


@dataclasses.dataclass(frozen=True)
class Rate:
    """What a source gave; CPU seconds and bytes are per crop, memory that of the process."""

    crops_per_s: float
    cpu_s: float
    bytes: float
    rss_mib: float


def add_options(parser: argparse.ArgumentParser) -> None:
    """The data, the crops and the step that is fed."""
    parser.add_argument("--data", type=pathlib.Path, help="a prepared data set")
    parser.add_argument("--split", default="train")
    parser.add_argument("--crop_seconds", type=float, default=6.0)
    parser.add_argument("--batch", type=int, default=8, help="crops per accelerator and step")
    parser.add_argument("--step_ms", type=float, default=100.0, help="of the model that is fed")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured, per row")
    parser.add_argument("--records", type=int, default=48, help="made-up ones, 1.5 and 8.5 MB each")


def run(options: argparse.Namespace) -> int:
    """Measures and prints the tables; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        if options.data:
            directories = {options.data.name: options.data}
        else:
            directories = {
                name: write_noise(pathlib.Path(folder) / name, layout, options.records)
                for name, layout in MADE_UP.items()
            }
        report(directories, options)
    return 0


def report(directories: dict[str, pathlib.Path], options: argparse.Namespace) -> None:
    """A row per data set and source, then the needs of many accelerators."""
    need = options.batch / options.step_ms * 1000
    print(f"a step of {options.step_ms:g} ms with {options.batch} crops needs {need:.1f}/s")
    print("| data | source | crops/s | MB/s | CPU ms per crop | memory, MiB | ratio |")
    print("|---|---|---|---|---|---|---|")
    streamed = {}
    for name, directory in directories.items():
        for source, module in (("tf.data", tf_data), ("memory", memory)):
            rate = measure(module, directory, options)
            streamed.setdefault(name, rate)
            print(
                f"| {name} | {source} | {rate.crops_per_s:.0f} | "
                f"{rate.crops_per_s * rate.bytes / 1e6:.0f} | "
                f"{1000 * rate.cpu_s:.2f} | {rate.rss_mib:.0f} | {rate.crops_per_s / need:.1f} |",
                flush=True,
            )
    print(f"\n| data | accelerators | crops/s | MB/s | cores | cores per host of {PER_HOST} |")
    print("|---|---|---|---|---|---|")
    for name, rate in streamed.items():
        for count in ACCELERATORS:
            crops = count * need
            cores = crops * rate.cpu_s
            print(
                f"| {name} | {count} | {crops:.0f} | {crops * rate.bytes / 1e6:.0f} | "
                f"{cores:.1f} | "
                f"{cores * PER_HOST / count:.1f} |"
            )


def write_noise(directory: pathlib.Path, layout: records.Layout, count: int) -> pathlib.Path:
    """A data set of noise."""
    rng = np.random.default_rng(0)

    def made():
        for number in range(count):
            record = {key: np.ones(shape, dtype) for key, (shape, dtype) in layout.arrays().items()}
            record["stems"] = rng.integers(-9999, 9999, record["stems"].shape, np.int16)
            samples = layout.record_samples
            yield {**record, "track": str(number), "start_sample": 0, "valid_samples": samples}

    builder.write_dataset(directory, {"train": made()}, layout=layout)
    return directory


def measure(module, directory: pathlib.Path, options: argparse.Namespace) -> Rate:
    """Reads crops for some seconds, after a few batches to warm up."""
    layout = records.open_prepared(directory).layout
    frames = round(options.crop_seconds * layout.sample_rate_hz / layout.hop_samples)
    batches = module.open_batches(
        [(str(directory), options.split, 1.0)],
        batch_size=options.batch,
        segment_samples=frames * layout.hop_samples,
        seed=0,
    )
    for _ in range(5):
        next(batches)
    started, cpu, count, size = time.perf_counter(), time.process_time(), 0, 0
    while time.perf_counter() - started < options.seconds:
        size += next(batches)["stems"].nbytes
        count += options.batch
    elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu
    return Rate(count / elapsed, cpu / count, size / count, measuring.status_mib("VmRSS"))
