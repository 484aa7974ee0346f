"""What accelerators can do, by their makers: memory, bandwidth, and rates of matrix products.

TPU: cloud.google.com/tpu/docs/v5e, v5p, v6e. GPU: NVIDIA's data sheets of the SXM cards, without
sparsity.
"""

import dataclasses
from collections.abc import Mapping

from benchmarks.harness import counting

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device.

    Args:
        memory_bytes: that a program can have at most.
        bytes_per_s: to and from this memory.
        flops_per_s: of products by `counting.Work`'s types. On a TPU one of float32 at JAX's
            default precision is one of bfloat16, and at the highest six of them; on a GPU it is one
            of TF32, and at the highest one of its other cores.
        link_bytes_per_s: to other chips, all links of a chip together.
    """

    memory_bytes: float
    bytes_per_s: float
    flops_per_s: Mapping[str, float]
    link_bytes_per_s: float

    def bounds_s(self, work: counting.Work, *, state_bytes: float) -> dict[str, float]:
        """Seconds that the products take at least, and the memory; a step reads each number of the
        state and writes it again.
        """
        products = sum(flops / self.flops_per_s[kind] for kind, flops in work.products.items())
        memory = (work.bytes + 2 * state_bytes) / self.bytes_per_s
        return {"products": products, "memory": memory}

    def least_s(self, work: counting.Work, *, state_bytes: float) -> float:
        """Seconds that a step takes at least: the larger of both bounds."""
        return max(self.bounds_s(work, state_bytes=state_bytes).values())


def _tpu(gib: float, gb_per_s: float, tflops: float, link_gb_per_s: float) -> Chip:
    rates = {"bfloat16": tflops, "float32": tflops, "highest": tflops / 6}
    return _chip(gib, gb_per_s, rates, link_gb_per_s)


def _chip(gib: float, gb_per_s: float, tflops: Mapping[str, float], link_gb_per_s: float) -> Chip:
    flops = {name: 1e12 * rate for name, rate in tflops.items()}
    return Chip(gib * GIB, 1e9 * gb_per_s, flops, 1e9 * link_gb_per_s)


CHIPS = {
    "v5e": _tpu(16, 819, 197, 200),
    "v5p": _tpu(95, 2765, 459, 600),
    "v6e": _tpu(32, 1640, 918, 448),
    "a100": _chip(80, 2039, {"bfloat16": 312, "float32": 156, "highest": 19.5}, 300),
    "h100": _chip(80, 3350, {"bfloat16": 989, "float32": 494, "highest": 67}, 450),
    "h200": _chip(141e9 / GIB, 4800, {"bfloat16": 989, "float32": 494, "highest": 67}, 450),
}
GPUS = ("a100", "h100", "h200")


def named(topology: str) -> Chip:
    """The chip of `v5e:4x4` or `h200`.

    Raises:
        ValueError: it is not known.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ValueError(
            f"--topology={topology}: expected one of {', '.join(CHIPS)}, TPUs with their shape, as"
            " v5e:4x4"
        )
    return CHIPS[name]
