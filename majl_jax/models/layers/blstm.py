"""Bidirectional LSTM layers whose backward pass over time is written by hand."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from majl_jax.models.layers.cudnn_lstm import cudnn_bidirectional_lstm, has_cudnn

IMPLEMENTATIONS = ("auto", "scan", "cudnn")
_FORGET_BIAS = 2.0
_DIRECTIONS = (0, 1)


class BLSTM(nn.Module):
    """Bidirectional LSTM layers (Graves and Schmidhuber, 2005) from [batch, frame, feature] to
    [batch, frame, 2 units].

    The states of both directions are concatenated, forward first; dropout lies between the layers
    alone. Matrix products are computed in `dtype`, the cells in float32. `auto` uses cuDNN on
    NVIDIA devices and the scan elsewhere; cuDNN computes in float32 (TF32, unless the matmul
    precision is "highest") whatever the `dtype`. Weights start normal with the variance 2 / (4
    units + inputs) of Glorot and Bengio over the four gates together, forget biases at 2 and the
    others at 0.
    """

    units: int
    layers: int = 1
    dropout: float = 0.0
    dtype: Any = jnp.float32
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch frame feature"], *, deterministic: bool = True
    ) -> Float[Array, "batch frame state"]:
        """States of the last layer in `dtype`; a dropout above 0 needs the key "dropout" unless
        `deterministic`.
        """
        if self.implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"implementation={self.implementation!r} is not one of"
                f" {', '.join(IMPLEMENTATIONS)}."
            )
        function = bidirectional_lstm
        if self.implementation == "cudnn":
            function = cudnn_bidirectional_lstm
        elif self.implementation == "auto" and has_cudnn():
            function = _by_platform
        hidden = inputs.astype(self.dtype).swapaxes(0, 1)
        for i in range(self.layers):
            if i:
                hidden = nn.Dropout(self.dropout, deterministic=deterministic)(hidden)
            weights = _Layer(self.units, name=f"layer_{i}")(hidden.shape[-1])
            hidden = function(hidden, *weights)
        return hidden.swapaxes(0, 1)


def _by_platform(*arrays: Array) -> Array:
    """cuDNN's where the program is made for NVIDIA devices, the scan elsewhere."""
    return jax.lax.platform_dependent(
        *arrays, cuda=cudnn_bidirectional_lstm, default=bidirectional_lstm
    )


class _Layer(nn.Module):
    """The weights of one layer; the first axis is the direction, the last the input, forget, cell
    and output gate.
    """

    units: int

    @nn.compact
    def __call__(self, features: int) -> tuple[Array, Array, Array]:
        gates = 4 * self.units

        def glorot(inputs: int) -> nn.initializers.Initializer:
            return nn.initializers.normal(math.sqrt(2 / (gates + inputs)))

        def forget(_: Array, shape: tuple[int, ...]) -> Array:
            return jnp.zeros(shape).at[:, self.units : 2 * self.units].set(_FORGET_BIAS)

        return (
            self.param("input_kernel", glorot(features), (2, features, gates)),
            self.param("recurrent_kernel", glorot(self.units), (2, self.units, gates)),
            self.param("bias", forget, (2, gates)),
        )


@jax.custom_vjp
def bidirectional_lstm(
    inputs: Float[Array, "frame batch feature"],
    input_kernel: Float[Array, "2 feature gate"],
    recurrent_kernel: Float[Array, "2 unit gate"],
    bias: Float[Array, "2 gate"],
) -> Float[Array, "frame batch state"]:
    """h = o tanh(c), c = f c' + i g with (i, f, g, o) = (s, s, tanh, s)(x W + h' R + b), s the
    sigmoid, over frames both ways.

    Of the type of the inputs. The frame comes first: each is then one piece of memory. Inputs are
    multiplied for all frames at once, both directions walk in one scan, and what they compute is
    written in place where it belongs in time.
    """
    return _forward(inputs, input_kernel, recurrent_kernel, bias, keep=False)[0]


def _forward(
    inputs: Array, input_kernel: Array, recurrent_kernel: Array, bias: Array, *, keep: bool
) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    """Outputs and, to `keep` for the backward pass, per direction the gates and the cell before
    each frame.
    """
    frames, batch, _ = inputs.shape
    units, dtype = recurrent_kernel.shape[1], inputs.dtype
    # Taken apart outside of the loop, which would copy them in every step.
    recurrent = tuple(recurrent_kernel[d].astype(dtype) for d in _DIRECTIONS)
    projected = tuple(
        _product(inputs, input_kernel[d].astype(dtype)) + bias[d, None, None].astype(dtype)
        for d in _DIRECTIONS
    )

    def step(carry: tuple, index: Array) -> tuple[tuple, None]:
        outputs, gates, cells, states = carry
        new_gates, new_cells, new_states = [], [], []
        for d, time in enumerate((index, frames - 1 - index)):
            hidden, cell = states[d]
            before = _at(projected[d], time) + _dot(hidden, recurrent[d])
            gate = jnp.concatenate(
                [
                    jax.nn.sigmoid(before[:, : 2 * units]),
                    jnp.tanh(before[:, 2 * units : 3 * units]),
                    jax.nn.sigmoid(before[:, 3 * units :]),
                ],
                axis=-1,
            )
            if keep:
                new_gates.append(_put(gates[d], gate, time))
                new_cells.append(_put(cells[d], cell, time))
            i, f, g, o = jnp.split(gate, 4, -1)
            cell = f * cell + i * g
            hidden = (o * jnp.tanh(cell)).astype(dtype)
            outputs = jax.lax.dynamic_update_slice(outputs, hidden[None], (time, 0, d * units))
            new_states.append((hidden, cell))
        return (outputs, tuple(new_gates), tuple(new_cells), tuple(new_states)), None

    state = jnp.zeros((batch, units), dtype), jnp.zeros((batch, units), jnp.float32)
    kept = tuple(_blank((frames, batch, 4 * units), dtype, inputs) for _ in _DIRECTIONS if keep)
    cells = tuple(_blank((frames, batch, units), jnp.float32, inputs) for _ in _DIRECTIONS if keep)
    outputs = _blank((frames, batch, 2 * units), dtype, inputs)
    carry = (outputs, kept, cells, (state, state))
    (outputs, gates, cells, _), _ = jax.lax.scan(step, carry, jnp.arange(frames))
    return outputs, gates, cells


def _keep(inputs: Array, input_kernel: Array, recurrent_kernel: Array, bias: Array):
    outputs, gates, cells = _forward(inputs, input_kernel, recurrent_kernel, bias, keep=True)
    return outputs, (inputs, input_kernel, recurrent_kernel, outputs, gates, cells)


def _backward(residuals: tuple, cotangent: Array):
    inputs, input_kernel, recurrent_kernel, outputs, gates, cells = residuals
    frames, batch, _ = inputs.shape
    units, dtype = recurrent_kernel.shape[1], inputs.dtype
    recurrent = tuple(recurrent_kernel[d].astype(dtype).T for d in _DIRECTIONS)

    def step(carry: tuple, index: Array) -> tuple[tuple, None]:
        all_before, states = carry
        new_before, new_states = [], []
        for d, time in enumerate((frames - 1 - index, index)):
            of_hidden, of_cell = states[d]
            start = (time, 0, d * units)
            arriving = jax.lax.dynamic_slice(cotangent, start, (1, batch, units))[0]
            of_hidden = of_hidden + arriving.astype(jnp.float32)
            cell = _at(cells[d], time)
            i, f, g, o = jnp.split(_at(gates[d], time), 4, -1)
            squashed = jnp.tanh(f * cell + i * g)
            of_cell = of_cell + of_hidden * o * (1 - squashed**2)
            before = jnp.concatenate(
                [
                    of_cell * g * i * (1 - i),
                    of_cell * cell * f * (1 - f),
                    of_cell * i * (1 - g**2),
                    of_hidden * squashed * o * (1 - o),
                ],
                axis=-1,
            ).astype(dtype)
            new_before.append(_put(all_before[d], before, time))
            new_states.append((_dot(before, recurrent[d]), of_cell * f))
        return (tuple(new_before), tuple(new_states)), None

    state = (jnp.zeros((batch, units), jnp.float32),) * 2
    # Not in the place of the gates, which XLA would then copy in every step.
    empty = tuple(_blank(gates[d].shape, dtype, cotangent) for d in _DIRECTIONS)
    (before, _), _ = jax.lax.scan(step, (empty, (state, state)), jnp.arange(frames))
    # Of each direction the hidden states that a frame starts from.
    past = jnp.pad(outputs[:-1, :, :units], ((1, 0), (0, 0), (0, 0)))
    future = jnp.pad(outputs[1:, :, units:], ((0, 1), (0, 0), (0, 0)))
    of_inputs = sum(_product(before[d], input_kernel[d].astype(dtype).T) for d in _DIRECTIONS)
    of_input_kernel = jnp.stack([_contract(inputs, before[d]) for d in _DIRECTIONS])
    of_recurrent = jnp.stack([_contract(past, before[0]), _contract(future, before[1])])
    of_bias = jnp.stack([before[d].sum((0, 1), dtype=jnp.float32) for d in _DIRECTIONS])
    parameters = (of_input_kernel, of_recurrent, of_bias)
    return of_inputs, *(x.astype(input_kernel.dtype) for x in parameters)


bidirectional_lstm.defvjp(_keep, _backward)


def _blank(shape: tuple[int, ...], dtype: Any, known: Array) -> Array:
    """Memory of which every value will be written; made from what is `known`, as XLA sets
    constants aside at the start.
    """
    return jnp.broadcast_to(known[0, 0, 0].astype(dtype), shape)


def _at(sequence: Array, time: Array) -> Array:
    """One frame, in float32."""
    return jax.lax.dynamic_index_in_dim(sequence, time, keepdims=False).astype(jnp.float32)


def _put(sequence: Array, frame: Array, time: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(sequence, frame.astype(sequence.dtype), time, 0)


def _dot(left: Array, right: Array) -> Array:
    return jnp.dot(left, right, preferred_element_type=jnp.float32)


def _product(sequence: Array, kernel: Array) -> Array:
    """sequence @ kernel as a product of two matrices."""
    outputs = sequence.reshape(-1, sequence.shape[-1]) @ kernel
    return outputs.reshape(*sequence.shape[:2], -1)


def _contract(left: Array, right: Array) -> Array:
    """Sum over frames and batch of the outer products, in float32."""
    left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    dimensions = (((0,), (0,)), ((), ()))
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)
