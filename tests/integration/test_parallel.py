import functools
import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec
from places import SUPPORT

from majl_jax import parallel
from majl_jax.training import loop, parameters, restore, run_log
from majl_jax.training.step import TrainState, make_step

STEPS = 10
SCRIPT = SUPPORT / "one_process.py"


@functools.cache
def first_state():
    stage = tiny.net_stage()
    variables = stage.init(jax.random.key(1), None)
    params = variables.pop("params")
    optimizer_state = stage.optimizer.init(params)
    return TrainState(np.int32(0), params, variables, optimizer_state, jax.random.key(2))


def net_step():
    stage, params = tiny.net_stage(), first_state().params
    mask = parameters.trainable_mask(params, stage.trainable)
    return make_step(stage.loss, stage.optimizer, mask)


@functools.cache
def trained(devices):
    """State and step metrics after a few steps on this many devices."""
    mesh = parallel.mesh(jax.devices()[:devices])
    state, step = parallel.replicate(first_state(), mesh), parallel.sharded(net_step(), mesh)
    batches, found = tiny.Batches(), []
    for _ in range(STEPS):
        state, metrics = step(state, parallel.split(next(batches), mesh))
        found.append(parallel.on_host(metrics))
    return parallel.on_host(without_key(state)), found


def without_key(state):
    return {"params": state.params, "mutables": state.mutables, "opt_state": state.opt_state}


@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.slow
def test_several_devices_agree_with_one(devices):
    one, several = trained(1), trained(devices)
    tiny.assert_close(one[0], several[0])
    tiny.assert_close(one[1], several[1])
    losses = [metrics["terms"]["loss"] for metrics in one[1]]
    assert losses[-1] < 0.9 * losses[0], "the comparison means little if nothing is learnt"


def test_the_same_step_under_pmap_agrees():
    step = jax.pmap(
        net_step(),
        axis_name=parallel.AXIS,
        in_axes=(None, 0),
        out_axes=None,
        devices=jax.devices()[:2],
    )
    state, batches, found = first_state(), tiny.Batches(), []
    for _ in range(STEPS):
        batch = {name: np.reshape(x, (2, -1, *x.shape[1:])) for name, x in next(batches).items()}
        state, metrics = step(state, batch)
        found.append(jax.device_get(metrics))
    sharded = trained(2)
    tiny.assert_close(jax.device_get(without_key(state)), sharded[0])
    tiny.assert_close(found, sharded[1])


def test_across_means_floats_keeps_the_rest_and_does_nothing_outside():
    tree = {"x": np.arange(4.0, dtype=np.float32), "n": np.arange(4, dtype=np.int32)}
    assert parallel.across(tree) is tree or tiny.assert_equal(parallel.across(tree), tree) is None
    mesh = parallel.mesh(jax.devices()[:4])
    spec = PartitionSpec(parallel.AXIS)
    mapped = jax.shard_map(
        parallel.across, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    out = mapped(tree)
    np.testing.assert_array_equal(out["x"], np.full(4, 1.5))
    np.testing.assert_array_equal(out["n"], np.arange(4))


def test_placing_copies_so_that_donation_leaves_the_original():
    mesh = parallel.mesh(jax.devices()[:1])
    original = {"w": jax.numpy.arange(3.0), "key": jax.random.key(5), "n": np.int64(3)}
    placed = parallel.replicate(original, mesh)
    jax.jit(lambda tree: jax.tree.map(lambda x: x, tree), donate_argnums=0)(placed)
    np.testing.assert_array_equal(original["w"], [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(jax.random.key_data(original["key"]), [0, 5])


def test_the_state_is_donated():
    mesh = parallel.mesh(jax.devices()[:2])
    step = parallel.sharded(lambda state, batch: (state + batch["x"].sum(), {}), mesh)
    state = parallel.replicate(np.float32(1), mesh)
    step(state, parallel.split({"x": np.ones(2, np.float32)}, mesh))
    assert state.is_deleted()


def test_batches_that_do_not_fit_are_refused():
    mesh = parallel.mesh(jax.devices()[:4])
    with pytest.raises(ValueError, match="6 examples does not divide over 4 devices"):
        parallel.split({"x": np.zeros((6, 2))}, mesh)
    with pytest.raises(ValueError, match="same number of examples"):
        parallel.split({"x": np.zeros((8, 2)), "y": np.zeros(4)}, mesh)


def test_initialize_wants_all_flags_or_none(monkeypatch):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    parallel.initialize()
    assert calls == []
    with pytest.raises(ValueError, match="also needs processes, process_id"):
        parallel.initialize("localhost:1234")
    with pytest.raises(ValueError, match="not both"):
        parallel.initialize(process_id=0, auto=True)
    parallel.initialize("localhost:1234", 2, 0)
    parallel.initialize(auto=True)
    assert calls == [(("localhost:1234",), {"num_processes": 2, "process_id": 0}), ((), {})]


def test_a_barrier_waits_as_long_as_an_evaluation_may_take(monkeypatch):
    waited = []
    monkeypatch.setattr(
        parallel.multihost, "get_barrier_sync_fn", lambda: lambda **how: waited.append(how)
    )
    for _ in range(2):
        parallel.barrier("finish")
    assert [how["timeout_ms"] for how in waited] == [24 * 3600 * 1000] * 2
    assert len({how["key"] for how in waited}) == 2


@pytest.fixture
def no_cache():
    """As if no cache of compiled programs were chosen."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_enable_xla_caches")
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_compilations_are_kept_for_this_user_unless_they_are_elsewhere(
    no_cache, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "cache/majl_jax/compiled"
    assert parallel.cache_compilations() == ""
    assert folder.stat().st_mode & 0o777 == 0o700
    assert parallel.cache_compilations(tmp_path / "other") == ""
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("what", ["others write", "others own", "a file", "no permission"])
def test_compilations_are_not_kept_where_others_could_change_them(
    no_cache, tmp_path, monkeypatch, what
):
    folder = tmp_path / "compiled"
    if what == "a file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o770 if what == "others write" else 0o700)
    if what == "others own":
        monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    if what == "no permission":

        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied", str(folder))

        monkeypatch.setattr(os, "makedirs", refuse)
    said = parallel.cache_compilations(folder)
    assert said.startswith("compiled programs are not kept: ") and str(folder) in said
    assert jax.config.jax_compilation_cache_dir is None


# ---- several processes ---------------------------------------------------------------------------


def launch(workdir, count, *options):
    """Run the script in `count` processes that talk over gloo; kill them if they hang."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    commands = [
        [
            sys.executable,
            str(SCRIPT),
            str(workdir),
            f"localhost:{port}",
            str(count),
            str(i),
            *options,
        ]
        for i in range(count)
    ]
    running = [
        subprocess.Popen(c, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for c in commands
    ]
    try:
        outputs = [process.communicate(timeout=90)[0] for process in running]
    finally:
        for process in running:
            process.kill()  # SIGTERM is not enough: JAX's preemption notifier swallows it
    for process, output in zip(running, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


def train_rows(workdir):
    drop = ("time_s", "steps_per_s")
    return [
        {k: v for k, v in row.items() if k not in drop} for row in run_log.read_metrics(workdir)
    ]


@pytest.mark.slow
def test_two_processes_train_save_stop_and_resume_like_one(tmp_path):
    stop, again = tmp_path / "two", tmp_path / "one"
    # SIGTERM to the second process only: both stop after the same step and save one checkpoint.
    outputs = launch(stop, 2, "--terminate-at=50")
    assert "run the same command again" in outputs[0]
    saved = restore.choose_step(stop, "first", "last")
    assert 0 < saved < 160
    assert sorted(p.name for p in (stop / "first" / "input" / str(saved)).iterdir()) == [
        "0-of-2",
        "1-of-2",
    ]
    shutil.copytree(stop, again)

    outputs = launch(stop, 2)
    assert f"going on from step {saved}" in outputs[0] and "reading" not in outputs[0]
    assert outputs[1] == "" or "steps/s" not in outputs[1], "only the first process speaks"
    two, _ = restore.load_variables(stop)

    # the same checkpoint goes on in one process, which finds its place in the input again
    stages = [tiny.net_stage(steps=160)]
    options = loop.Options(log_every_steps=20, evaluate_every_steps=80, checkpoint_every_steps=40)
    loop.run(stages, again, jax.random.key(0), options, devices=jax.devices()[:2])
    one, _ = restore.load_variables(again)
    tiny.assert_close(two, one, rtol=1e-4)

    whole = tmp_path / "whole"
    loop.run(stages, whole, jax.random.key(0), options, devices=jax.devices()[:2])
    never_stopped, _ = restore.load_variables(whole)
    tiny.assert_close(two, never_stopped, rtol=1e-4)
    rows = train_rows(stop)
    assert [(r["kind"], r["step"]) for r in rows] == [
        (r["kind"], r["step"]) for r in train_rows(whole)
    ]
    assert json.loads((stop / "first" / "result.json").read_text())["step"] == 160
