"""majl_jax.parallel: what needs one device alone (tests/integration has the rest)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from majl_jax import parallel


def test_first_parameters_are_those_of_jit_and_can_be_traced() -> None:
    network = nn.Sequential([nn.Dense(7), nn.Dense(3)])
    audio = jnp.zeros((1, 5))
    once = parallel.runs_once(network.init)
    found, wanted = once(jax.random.key(3), audio), jax.jit(network.init)(jax.random.key(3), audio)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)
    assert jax.eval_shape(once, jax.random.key(3), audio) == jax.eval_shape(lambda: wanted)
