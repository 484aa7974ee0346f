"""The state of a training run and the step that changes it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from majl_jax import parallel
from majl_jax.batch import Batch, Params, Variables
from majl_jax.training import optimizer as training_optimizer
from majl_jax.training import parameters
from majl_jax.training.stage import Loss, Stage


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a step changes, and the key it does not: its randomness is fold_in(key, step)."""

    step: Any
    """The global step: updates so far, skipped ones included."""
    params: Params
    mutables: Variables
    opt_state: optax.OptState
    key: Any


Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Any]]]
"""(state, batch) -> (state, {"terms": {name: scalar}, "checks": {name: scalar}})."""


def make_step(loss: Loss, optimizer: optax.GradientTransformation, mask: Any) -> Step:
    """The per-device step (state, batch) -> (state, step metrics), with collectives over
    `parallel.AXIS`.

    If its loss, gradient, update or new mutables are not finite, it changes only the step number.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Any]]:
        key = jax.random.fold_in(state.key, state.step)

        def local_loss(params):
            return loss(parameters.stop_frozen(params, mask), state.mutables, batch, key)

        (value, (mutables, terms)), grads = jax.value_and_grad(local_loss, has_aux=True)(
            state.params
        )
        _check_aux(state.mutables, mutables, terms)
        terms = {name: jnp.asarray(term, jnp.float32) for name, term in terms.items()}
        value, terms, mutables, grads = parallel.across((value, terms, mutables, grads))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        terms = {"loss": value, **terms, "grad_norm": optax.tree.norm(grads)}
        checks = {
            "loss": value,
            "grad_norm": terms["grad_norm"],
            "update": optax.tree.norm(updates),
            "mutables": _sum_inexact(mutables),
        }
        good = jnp.all(jnp.isfinite(jnp.stack(list(checks.values()))))
        new = (optax.apply_updates(state.params, updates), mutables, opt_state)
        old = (state.params, state.mutables, state.opt_state)
        params, mutables, opt_state = jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)
        terms |= training_optimizer.step_metrics(opt_state)
        metrics = {"terms": terms, "checks": checks}
        return TrainState(state.step + 1, params, mutables, opt_state, state.key), metrics

    return step


def compiled_step(
    stage: Stage, mask: Any, mesh: Mesh
) -> tuple[optax.GradientTransformation, Callable]:
    """The optimiser of what a stage trains, a tree of booleans like its parameters, and its step on
    all devices of the mesh, by `jax.jit`.
    """
    optimizer = parameters.only_trainable(stage.optimizer, mask)
    return optimizer, parallel.sharded(make_step(stage.loss, optimizer, mask), mesh)


def _check_aux(old: Any, new: Any, terms: Mapping[str, Any]) -> None:
    if jax.tree.structure(old) != jax.tree.structure(new):
        raise ValueError(
            f"loss returned other mutables than it was given: {jax.tree.structure(new)}, "
            f"expected {jax.tree.structure(old)}; return the same collections that init makes"
        )
    for name, term in terms.items():
        if jnp.ndim(term) != 0:
            raise ValueError(f"loss term {name!r} has shape {jnp.shape(term)}; expected a scalar")


def _sum_inexact(tree: Any) -> Any:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return sum((jnp.sum(jnp.abs(x)).astype(jnp.float32) for x in leaves), jnp.float32(0))
