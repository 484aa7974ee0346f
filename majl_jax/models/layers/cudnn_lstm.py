"""The bidirectional LSTM layer of cuDNN, on the parameters of `majl_jax.models.layers.blstm`."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import rnn
from jaxtyping import Array, Float


@functools.cache
def has_cudnn() -> bool:
    """Whether cuDNN's LSTM can be part of a program: JAX's plugin for NVIDIA devices is there, and
    such a device.
    """
    shapes = ((1, 1, 1), (2, 1, 4), (2, 1, 4), (2, 4))
    examples = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    try:
        jax.eval_shape(cudnn_bidirectional_lstm, *examples)
    # What lacks shows as many kinds of errors.
    except Exception:
        return False
    return True


def cudnn_bidirectional_lstm(
    inputs: Float[Array, "frame batch feature"],
    input_kernel: Float[Array, "2 feature gate"],
    recurrent_kernel: Float[Array, "2 unit gate"],
    bias: Float[Array, "2 gate"],
) -> Float[Array, "frame batch state"]:
    """What `bidirectional_lstm` computes, by cuDNN and in float32; on NVIDIA devices alone, and
    without vmap.
    """
    frames, batch, features = inputs.shape
    units = recurrent_kernel.shape[1]
    state = jnp.zeros((2, batch, units), jnp.float32)
    # cuDNN's own dropout would draw the same mask in every step.
    outputs: Array = rnn.lstm(  # pyright: ignore[reportIndexIssue]
        inputs.swapaxes(0, 1).astype(jnp.float32),
        state,
        state,
        packed(input_kernel, recurrent_kernel, bias),
        jnp.full((batch,), frames, jnp.int32),
        features,
        units,
        1,
        0.0,
        True,
    )[0]
    return outputs.swapaxes(0, 1).astype(inputs.dtype)


def packed(
    input_kernel: Float[Array, "2 feature gate"],
    recurrent_kernel: Float[Array, "2 unit gate"],
    bias: Float[Array, "2 gate"],
) -> Float[Array, " weight"]:
    """cuDNN's flat weights of a layer: both matrices of each direction, then both biases; our bias
    is the first of two.
    """
    matrices = [kernel[d].T.ravel() for d in (0, 1) for kernel in (input_kernel, recurrent_kernel)]
    biases = [part for d in (0, 1) for part in (bias[d], jnp.zeros_like(bias[d]))]
    return jnp.concatenate([*matrices, *biases]).astype(jnp.float32)
