"""Where PyTorch computes: on its accelerator, if it has one, else on the CPU."""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


@functools.cache
def device() -> str:
    """Of models and their inputs; on a GPU products of float32 are TF32, as JAX's are there."""
    if not torch.cuda.is_available():
        return "cpu"
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return "cuda"


def placed(*arrays: np.ndarray) -> list[torch.Tensor]:
    """Arrays as tensors where PyTorch computes."""
    return [torch.from_numpy(array).to(device()) for array in arrays]


def arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Tensors as arrays of their own."""
    return {name: array(value) for name, value in state.items()}


def array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array of its own."""
    return tensor.detach().cpu().numpy().copy()


def model_on_device(model: Any, options: argparse.Namespace) -> Any:
    """The model where PyTorch computes; compiled, if the command says so."""
    model.to(device())
    if options.torch_compile:
        model.compile()
    return model


def waiting(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call that ends when the device has."""

    def waits() -> Any:
        result = call()
        if device() == "cuda":
            torch.cuda.synchronize()
        return result

    return waits


def peak_mib() -> float | None:
    """Peak memory of the accelerator; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**20 if device() == "cuda" else None
