"""The step of every stage at its published size becomes a program for NVIDIA's and Google's
devices, on a machine that has neither.

Nothing is compiled and no parameter is made: a trace on shapes, lowered once for both platforms.
"""

import dataclasses
import functools
import re

import cudnn_stand_ins
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smoke_runs

from benchmarks.harness import on_shapes
from majl_jax import parallel
from majl_jax.models.layers import attention
from majl_jax.models.layers.blstm import BLSTM
from majl_jax.recipes import jukebox, majl, mixit, ss_mpe, transfer
from majl_jax.training import dry_run

PLATFORMS = ("cuda", "tpu")
RECIPES = {"majl": majl, "ss_mpe": ss_mpe, "transfer": transfer, "mixit": mixit}
RECIPES |= {"jukebox": jukebox}
# Whose program is that of another stage, or a part of it: beside data, batch and learning rate they
# differ in what is named, which adds no layer and no term of a loss.
SAME = {
    ("majl", "student"): ("teacher", ()),
    ("majl", "naive_joint"): ("teacher", ("weight_module", "dynamic")),
    ("majl", "pipeline"): ("teacher", ("weight_module", "dynamic", "interface")),
    ("ss_mpe", "finetune"): ("reference", ()),
    ("mixit", "scratch"): ("supervised", ()),
    ("transfer", "scratch"): ("finetune", ()),
    ("jukebox", "music"): ("vqvae", ("folder", "target", "settings")),
}
STEPS = [(name, stage) for name, recipe in RECIPES.items() for stage in recipe.STAGES]
DISTINCT = [step for step in STEPS if step not in SAME]
# Without an LSTM and with one; the others are as long again, each.
USUAL = [("majl", "teacher"), ("transfer", "pretrain")]
SCHEDULE = ("batch_size", "steps", "learning_rate", "start", "warmup_steps")
SCHEDULE += ("decay_from", "decay_every", "decay_factor", "labelled", "unlabelled")
# What a program calls that is not computed in it: nothing but how its arrays lie.
CALLED = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}


@functools.cache
def _stages(name, folder):
    """The stages of a recipe on shapes, by name."""
    made = on_shapes.stages(smoke_runs.load_config(name, "paper"), folder)
    return {one.stage.name: one for one in made}


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    return lambda name: _stages(name, tmp_path_factory.getbasetemp() / f"lowering_{name}")


def _lowered(one, platforms=PLATFORMS):
    """The text of the step's program, without places of the code."""
    mesh = parallel.mesh(jax.devices()[:2])
    step, state, batch = dry_run.abstract_step(one.stage, one.batch(), mesh)
    return step.trace(state, batch).lower(lowering_platforms=platforms).as_text()


def _called(text):
    return set(re.findall(r"stablehlo\.custom_call @(\w+)", text))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage"),
    [
        pytest.param(
            *one,
            marks=[pytest.mark.xdist_group(f"lowering_{one[0]}")]
            + [pytest.mark.thorough] * (one not in USUAL),
        )
        for one in DISTINCT
    ],
)
def test_the_step_of_every_stage_is_lowered_for_accelerators(stages, name, stage):
    text = _lowered(stages(name)[stage])
    assert re.search(r"mhlo\.num_partitions = 2|sdy\.mesh @mesh = <\[\"data\"=2\]>", text)
    # The mean of the gradients over the devices.
    assert "stablehlo.all_reduce" in text
    assert _called(text) <= CALLED


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), SAME, ids=["-".join(one) for one in SAME])
def test_stages_that_are_not_lowered_have_the_program_of_another(stages, name, stage):
    of, besides = SAME[name, stage]
    one, other = stages(name)[stage], stages(name)[of]
    if "folder" not in besides:
        assert one.example == other.example
    assert one.stage.trainable == other.stage.trainable
    loss, another = (_description(each.stage.loss, besides) for each in (one, other))
    assert loss == another


def _description(loss, besides):
    """What a loss is made of, without the name, the batch and the schedule of its stage."""
    made_of = [*loss.keywords.items()]
    for setting in loss.args:
        made_of += _fields(setting)
        made_of += [item for item in setting.options.items() if item[0] not in SCHEDULE]
    kept = [value for name, value in loss.keywords.items() if name not in besides]
    made_of += [item for value in kept for item in _fields(value)]
    parts = {name: repr(value) for name, value in made_of if name not in {*besides, "name"}}
    # It stands there by its fields.
    parts.pop("cascade", None)
    return loss.func, {name: re.sub(r" at 0x\w+", "", text) for name, text in parts.items()}


def _fields(one):
    """(name, value) of a dataclass."""
    known = dataclasses.fields(one) if dataclasses.is_dataclass(one) else ()
    return [(field.name, getattr(one, field.name)) for field in known]


# ---- cuDNN ---------------------------------------------------------------------------------------


@pytest.fixture
def cudnn(monkeypatch):
    """Networks find cuDNN, which cannot run here."""
    cudnn_stand_ins.install(monkeypatch)
    yield
    monkeypatch.undo()
    cudnn_stand_ins.uninstall()


def _blstm(key, inputs):
    model = BLSTM(4, 2)
    params = model.init(key, inputs)

    def loss(params):
        return model.apply(params, inputs).sum()

    return jax.value_and_grad(loss)(params)


def _attention(key, inputs):
    query = jax.random.normal(key, (2, 16, 2, 8)).astype(jnp.bfloat16)
    used = attention.implementation_for("auto", jnp.bfloat16, 8)

    def loss(query):
        return attention.attend(query, query, query, used).astype(jnp.float32).sum()

    return jax.value_and_grad(loss)(query)


CUDNN = {
    "lstm": (_blstm, {"cudnn_rnn_ffi", "cudnn_rnn_bwd_ffi"}),
    "attention": (_attention, {"__cudnn$fmhaSoftmax", "__cudnn$fmhaSoftmaxBackward"}),
}
CALL = re.compile(r"(?:stablehlo\.custom_call @|call_target_name = \")([\w$]+)")


@pytest.mark.parametrize(("function", "expected"), CUDNN.values(), ids=CUDNN)
@pytest.mark.slow
def test_cudnn_is_part_of_programs_for_nvidia_devices_alone(cudnn, function, expected):
    traced = jax.jit(function).trace(jax.random.key(0), jnp.ones((2, 5, 3)))
    found = {
        platform: set(CALL.findall(traced.lower(lowering_platforms=(platform,)).as_text()))
        for platform in ("cuda", "tpu", "cpu")
    }
    assert expected <= found["cuda"]
    assert not expected & (found["tpu"] | found["cpu"])


@pytest.mark.thorough
@pytest.mark.parametrize(("function", "tolerance"), [(_blstm, 1e-6), (_attention, 2e-2)])
def test_where_cudnn_cannot_run_the_numbers_are_those_of_a_machine_without_it(
    monkeypatch, function, tolerance
):
    arguments = jax.random.key(0), jnp.ones((2, 5, 3))
    without = jax.jit(lambda *x: function(*x))(*arguments)
    with monkeypatch.context() as patch:
        cudnn_stand_ins.install(patch)
        beside = jax.jit(lambda *x: function(*x))(*arguments)
    cudnn_stand_ins.uninstall()
    # XLA may round bfloat16 at other places of a program that is laid out in another way.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=tolerance), without, beside)
