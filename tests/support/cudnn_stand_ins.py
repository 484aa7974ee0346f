"""What JAX's plugin for NVIDIA devices adds to it, as far as programs with cuDNN's attention and
LSTM are traced and lowered with it.
"""

import functools
import types

import jax
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import rnn
from jax.interpreters import mlir
from jaxlib import gpu_rnn

from majl_jax.models.layers import attention, cudnn_lstm

VERSIONS = types.SimpleNamespace(cudnn_get_version=lambda: 91_000)
DESCRIPTOR = types.SimpleNamespace(build_rnn_descriptor=lambda *_: b"")


def install(monkeypatch):
    """Until the test ends, networks find cuDNN; nothing of it can run."""
    monkeypatch.setattr(fused_attention_stablehlo, "cuda_versions", VERSIONS)
    name = "compute_rnn_workspace_reserve_space_sizes"
    monkeypatch.setattr(gpu_rnn, name, lambda *_: (8, 8), raising=False)
    for primitive, lowering in (
        (rnn.rnn_fwd_p, gpu_rnn._rnn_fwd_lowering),
        (rnn.rnn_bwd_p, gpu_rnn._rnn_bwd_lowering),
    ):
        rule = functools.partial(lowering, DESCRIPTOR, "cu")
        mlir.register_lowering(primitive, rule, platform="cuda")
    for found in (attention._obstacle, cudnn_lstm.has_cudnn):
        found.cache_clear()


def uninstall():
    """Networks look again what there is, and in no program traced with the stand-ins."""
    jax.clear_caches()
    for found in (attention._obstacle, cudnn_lstm.has_cudnn):
        found.cache_clear()
