"""Which of the two inputs a config names."""

from collections.abc import Callable

from majl_jax.datasets.input import memory, tf_data
from majl_jax.datasets.input.schedule import Batches


def named(name: str) -> Callable[..., Batches]:
    """`open_batches` of "tf.data" (shards from disk) or "memory" (no TensorFlow); both take the same arguments."""
    match name:
        case "tf.data":
            return tf_data.open_batches
        case "memory":
            return memory.open_batches
    raise ValueError(f"config.data.reader is {name!r}; expected tf.data or memory")
