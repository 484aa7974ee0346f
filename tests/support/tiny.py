"""Two tiny models, their data and their stages: hundreds of steps take a second."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from majl_jax import parallel
from majl_jax.training import optimizer, stage


class Batches:
    """An endless seeded stream of global batches, of which each process takes its slice."""

    def __init__(self, *, batch_size=8, process_index=0, process_count=1, hook=None):
        self.size, self.index, self.count = batch_size, process_index, process_count
        self.hook, self.taken, self.restored = hook, 0, None

    def __iter__(self):
        return self

    def __next__(self):
        rng = np.random.default_rng([7, self.taken])
        x = rng.standard_normal((self.size, 16, 2)).astype(np.float32)
        y = (x[..., :1] * 0.7 + np.roll(x[..., 1:], 1, axis=1)).astype(np.float32)
        index = np.arange(self.size, dtype=np.uint32) + np.uint32(self.taken * self.size)
        self.taken += 1
        if self.hook is not None:
            self.hook(self.taken, x)
        local = self.size // self.count
        part = slice(self.index * local, (self.index + 1) * local)
        return {"x": x[part], "y": y[part], "index": index[part]}

    def save(self):
        return json.dumps({"taken": self.taken}).encode()

    def restore(self, state):
        self.taken = self.restored = json.loads(state)["taken"]


class Net(nn.Module):
    """Convolution without a bias (BatchNorm follows), cross-device BatchNorm, a dense head."""

    @nn.compact
    def __call__(self, x, *, training):
        x = nn.Conv(8, (5,), use_bias=False, name="body")(x)
        axis = parallel.AXIS if training else None
        norm = nn.BatchNorm(use_running_average=not training, momentum=0.9, axis_name=axis)
        return nn.Dense(1, name="head")(nn.relu(norm(x)))


def net_init(key, previous=None):
    del previous
    return dict(Net().init(key, jnp.zeros((2, 16, 2)), training=False))


def net_loss(params, mutables, batch, key):
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch["index"])
    noise = jax.vmap(lambda k: jax.random.normal(k, (16, 2)))(keys)
    variables, x = {"params": params, **mutables}, batch["x"] + 0.1 * noise
    out, new = Net().apply(variables, x, training=True, mutable=["batch_stats"])
    mse = jnp.mean((out - batch["y"]) ** 2)
    size = jnp.mean(jnp.abs(out))
    return mse + 0.01 * size, (dict(new), {"mse": mse, "size": size})


def net_evaluate(variables):
    batch = next(Batches())
    out = Net().apply(variables, batch["x"], training=False)
    return {"score": -float(jnp.mean((out - batch["y"]) ** 2))}


def line_init(key, previous=None):
    params = {"body": {"w": jax.random.normal(key, (2, 3))}, "head": {"w": jnp.ones((3, 1))}}
    if previous is not None:
        params = {**params, "body": previous["params"]["body"]}
    return {"params": params, "state": {"seen": jnp.zeros(())}}


def line_loss(params, mutables, batch, key):
    out = batch["x"] @ params["body"]["w"] @ params["head"]["w"]
    noise = jax.random.normal(key, ())
    mse = jnp.mean((out - batch["y"]) ** 2) * (1 + 0.01 * noise)
    return mse, ({"state": {"seen": mutables["state"]["seen"] + 1}}, {"mse": mse, "noise": noise})


def line_evaluate(variables):
    return {"score": float(np.sum(variables["params"]["body"]["w"]))}


def net_stage(name="first", steps=20, **changes):
    parts = {
        "name": name,
        "init": net_init,
        "batches": lambda previous: Batches(),
        "loss": net_loss,
        "evaluate": net_evaluate,
        "optimizer": optimizer.optimizer(1e-2, auto_clip=optimizer.AutoClip(10.0, 8)),
        "steps": steps,
    }
    return stage.Stage(**{**parts, **changes})


def line_stage(name="first", steps=20, **changes):
    parts = {
        "init": line_init,
        "loss": line_loss,
        "evaluate": line_evaluate,
        "optimizer": optimizer.optimizer(1e-2, clip_norm=1.0),
    }
    return net_stage(name, steps, **{**parts, **changes})


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def assert_equal(a, b):
    """Bit for bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes()


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)
