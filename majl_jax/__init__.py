"""majl_jax: music information retrieval when labels are few, five papers on one training loop."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from majl_jax.separate.loaded import load as load

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # JAX is imported only where a model is loaded.
    if name == "load":
        from majl_jax.separate.loaded import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
