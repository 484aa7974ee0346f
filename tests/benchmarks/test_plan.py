"""What is counted in a program, what is planned for accelerators, and a card's parts."""

import argparse
import importlib.util
import json
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import card, first_step, plan, separate_song
from benchmarks.harness import chips, comparison, counting

STAGE = ("configs/transfer.py:smoke", "pretrain")


def count(function, *shapes, platform="cpu", dtype=jnp.float32):
    arguments = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return counting.work(jax.jit(function).trace(*arguments).jaxpr.jaxpr, platform)


def convolve(inputs, kernel, stride=1):
    numbers = ("NWC", "WIO", "NWC")
    return jax.lax.conv_general_dilated(
        inputs, kernel, (stride,), "SAME", dimension_numbers=numbers
    )


# ---- counting ------------------------------------------------------------------------------------


def test_products_are_counted_by_type_and_precision():
    found = count(lambda a, b: a @ b, (2, 3, 4), (4, 5))
    assert found.products == {"float32": 2 * 2 * 3 * 4 * 5}
    assert found.bytes == 4 * (24 + 20 + 30)
    exact = count(lambda a, b: jnp.matmul(a, b, precision="highest"), (3, 4), (4, 5))
    assert exact.products == {"highest": 120}
    assert count(jnp.matmul, (3, 4), (4, 5), dtype=jnp.bfloat16).products == {"bfloat16": 120}
    assert count(jnp.matmul, (3, 4), (4, 5), dtype=jnp.complex64).products == {"float32": 480}


def test_loops_count_as_often_as_they_run_also_inside_other_functions():
    def loop(x, w):
        return jax.lax.scan(jax.checkpoint(lambda c, _: (jnp.tanh(c @ w), None)), x, length=7)[0]

    assert count(jax.jit(loop), (3, 4), (4, 4)).flops == 7 * 2 * 3 * 4 * 4
    # Forward, again in the backward pass, and the gradients of both factors.
    gradient = jax.grad(lambda x, w: loop(x, w).sum(), (0, 1))
    assert count(gradient, (3, 4), (4, 4)).flops == 4 * 7 * 2 * 3 * 4 * 4


def test_what_is_the_same_in_all_runs_of_a_loop_is_read_once():
    def loop(x, w):
        step = jax.jit(lambda c, w: jnp.tanh(c @ w))
        return jax.lax.scan(lambda c, _: (step(c, w), None), x, length=7)[0]

    assert count(loop, (3, 4), (4, 4)).bytes == 4 * (16 + 7 * (12 + 12))


def test_what_is_put_into_an_array_counts_and_not_the_array():
    def put(x, y):
        return jax.lax.dynamic_update_slice(x, y, (0, 0))

    assert count(put, (100, 4), (1, 4)).bytes == 2 * 16


def test_a_branch_by_platform_counts_as_that_platform_s():
    def by_platform(a, b):
        return jax.lax.platform_dependent(
            a, b, cuda=lambda a, b: a @ b, default=lambda a, b: (a @ b) @ b
        )

    flops = {p: count(by_platform, (4, 4), (4, 4), platform=p).flops for p in ("cuda", "tpu")}
    assert flops == {"cuda": 128, "tpu": 256}


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_gradients_cost_the_same_each(stride):
    shapes = (2, 16, 3), (5, 3, 4)
    once = count(lambda x, k: convolve(x, k, stride), *shapes).flops
    assert once == 2 * (2 * 16 // stride * 4) * 5 * 3
    # A loss that needs what the convolution gives.
    gradient = jax.grad(lambda x, k: (convolve(x, k, stride) ** 2).sum(), (0, 1))
    assert count(gradient, *shapes).flops == pytest.approx(3 * once, rel=0.1)


def test_transforms_of_real_numbers_cost_half():
    real = count(jnp.fft.rfft, (3, 256))
    assert real.transforms == 0.5 * 5 * 3 * 256 * 8 and not real.products
    assert count(jnp.fft.fft, (3, 256), dtype=jnp.complex64).transforms == 2 * real.transforms


def test_the_least_time_is_the_larger_bound():
    chip = chips.named("v5e:4x4")
    work = counting.Work({"bfloat16": 197e12, "highest": 197e12}, bytes=819e9)
    assert chip.bounds_s(work, state_bytes=0) == {"products": pytest.approx(7), "memory": 1}
    assert chip.least_s(work, state_bytes=10 * 819e9) == pytest.approx(21)
    with pytest.raises(ValueError, match="--topology=v4:2x2: expected one of v5e"):
        chips.named("v4:2x2")


def test_collectives_are_read_in_the_compiled_program():
    text = """
  %all-reduce.1 = (f32[10,4]{1,0:T(8,128)}, bf16[7]{0}) all-reduce(%a, %b), replica_groups={}
  %all-reduce-start.2 = f32[3]{0} all-reduce-start(%c), channel_id=1
  %done = f32[3]{0} all-reduce-done(%all-reduce-start.2)
  %all-gather.1 = pred[8]{0} all-gather(%d), dimensions={0}
    """
    assert plan.collectives(text) == {"all-reduce": (2, 160 + 14 + 12), "all-gather": (1, 8)}


def test_what_a_compiler_asks_for_is_read():
    text = "RESOURCE_EXHAUSTED: ... Used 24.50G of 15.75G hbm. Exceeded hbm capacity by 8.7G"
    assert plan._asked(text) == 24.5 * 2**30
    assert plan._asked("RESOURCE_EXHAUSTED") == float("inf")


# ---- the commands --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_plan_for_a_gpu_is_made_from_the_lowered_program():
    options = command.parse(["plan", STAGE[0], "--topology=h200"])
    found = plan.plan(options, *STAGE)
    assert found["examples"] == 4 and found["flops"] > 1e6 and "memory_bytes" not in found
    assert 0 < found["least_s"] < 1e-2 and found["state_bytes"] > 3 * 34_502 * 4
    assert plan.row("transfer pretrain", found).split()[2:5] == ["4", "-", "-"]
    more = plan.plan(command.parse(["plan", *STAGE[:1], "--topology=h200", "--examples=8"]), *STAGE)
    assert more["flops"] == pytest.approx(2 * found["flops"], rel=0.05)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="pip install libtpu: 500 MB")
def test_a_plan_for_a_tpu_is_that_of_its_compiler(tmp_path):
    path = tmp_path / "plan.jsonl"
    given = ["plan", STAGE[0], f"--stage={STAGE[1]}", "--topology=v5e:2x2", f"--json={path}"]
    assert command.main(given) == 0
    found = json.loads(path.read_text())
    assert 0 < found["memory_bytes"] < found["limit_bytes"]
    # The gradients of all parameters are averaged over the chips.
    number, size = found["collectives"]["all-reduce"]
    assert number >= 1 and size >= 4 * 34_502


def test_a_process_that_is_killed_or_fails_is_an_error_in_its_row(monkeypatch):
    options = command.parse(["plan", STAGE[0], "--minutes=3"])
    for code, words in ((-9, "not compiled in 3 minutes"), (1, "exit status 1: it broke")):
        done = subprocess.CompletedProcess([], code, stderr="a traceback\nit broke\n")
        monkeypatch.setattr(subprocess, "run", lambda *_, done=done, **__: done)
        assert words in plan.row("x", plan._child(options, "case"))


@pytest.mark.slow
def test_a_card_s_parts_run_once_and_say_what_failed(tmp_path, capsys):
    wanted = "transfer-pretrain-float32,torch-blstm"
    call = ["card", f"--output={tmp_path}", "--preset=smoke", "--steps=1", f"--parts={wanted}"]
    assert command.main([*call, "--minutes=0"]) == 3
    assert f"goes on with {wanted.replace(',', ', ')}" in capsys.readouterr().out
    (tmp_path / "torch-blstm.json").write_text(json.dumps({"error": "not done in 3 s"}))
    assert command.main(call) == 0
    found = json.loads((tmp_path / "transfer-pretrain-float32.json").read_text())
    assert found["step_ms"] > 0 and found["flops"] > 0 and found["share_of_limit"] is None
    printed = capsys.readouterr().out
    assert "torch-blstm                     not done in 3 s" in printed
    # Nothing is left to run.
    assert command.main([*call, "--minutes=0"]) == 0
    assert capsys.readouterr().out == printed
    with pytest.raises(ValueError, match="--parts: nothing; there are majl-teacher-float32"):
        card.parts(argparse.Namespace(only=None, parts="nothing", command=()))


def test_a_card_s_parts_are_commands_that_are_understood():
    options = command.parse(["card", "--output=x"])
    for name, words in card.parts(options).items():
        given = words[words.index("benchmarks") + 1 :]
        if name.startswith("torch-"):
            assert command.parse(given).torch_compile
        else:
            assert given[-1] == f"--child={name}"


@pytest.mark.slow
def test_a_song_is_separated_with_a_network_and_without_one():
    found = separate_song.measure("voice", seconds=1.0)
    assert found["rate_hz"] == 16_000 and 0 < found["rest_s"] < found["first_s"]
    assert 0 < found["s"] < found["first_s"] and found["mib"] > 100


@pytest.mark.slow
def test_the_parts_of_a_first_step_are_timed():
    options = command.parse(["first_step", STAGE[0]])
    found = first_step.measure(options, STAGE[0])
    assert found["stage"] == "pretrain" and found["equations"] > 500
    for part in ("init", "trace", "lower", "compile"):
        assert found[part]["s"] > 0 and found[part]["cpu_s"] > 0
    shown = first_step.row(STAGE[0], found)
    assert shown.startswith("transfer.py:smoke pretrain") and shown.count(" - ") == 4
    assert len(first_step.default_configs()) == 20 and comparison.ROOT.is_dir()
    assert np.isfinite(found["equations"])
