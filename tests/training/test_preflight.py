"""What is known before a training: a batch, memory, disk; nothing is written, and what is too small
is an error.
"""

import re
import shutil

import jax
import numpy as np
import pytest
import tiny

from majl_jax.training import loop, preflight

KEY = jax.random.key(0)
OPTIONS = loop.Options(keep_last=2, keep_best=1)


def lines(workdir, *stages, devices=1):
    of = stages or (tiny.net_stage("first", best="score"), tiny.net_stage("second"))
    return list(preflight.check(of, workdir, KEY, OPTIONS, devices=jax.devices()[:devices]))


@pytest.mark.parametrize("devices", [1, 4])
def test_it_tells_batch_memory_and_disk_and_writes_nothing(tmp_path, devices):
    said = lines(tmp_path / "run", devices=devices)
    assert said[:2] == [f"stage {n}: 20 steps, to be trained" for n in ("first", "second")]
    assert "index uint32[8], x float32[8, 16, 2], y float32[8, 16, 1]; o" in said[2]
    assert ("over 4 cpu" if devices == 4 else "on one cpu") in said[2]
    assert "memory of each device, as XLA plans the step: " in said[3]
    # 2 + 1 of the first stage, which chooses its best, 2 of the second, and one being written.
    assert "of which 5 are kept" in said[4] and "are free in" in said[4]
    assert not list(tmp_path.iterdir())


def test_the_memory_of_state_and_batch_is_theirs(tmp_path):
    stage = tiny.net_stage()
    line = lines(tmp_path, stage)[2]
    state, *_ = preflight.start(stage, None, (KEY, KEY), preflight.parallel.mesh(jax.devices()[:1]))
    batch = next(tiny.Batches())
    leaves = [*jax.tree.leaves(state), *batch.values()]
    size = sum(
        np.asarray(jax.random.key_data(x) if x.dtype == KEY.dtype else x).nbytes for x in leaves
    )
    found = re.search(r"\(state and batch ([\d.]+) (k?B)", line)
    assert float(found[1]) * (1000 if found[2] == "kB" else 1) == pytest.approx(size, rel=0.01)


def test_a_disk_or_a_device_that_is_too_small_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "_bytes_of_device", lambda mesh: 2000)
    with pytest.raises(preflight.PreflightError, match=r"but a device has 2 kB: use a smaller"):
        lines(tmp_path)
    monkeypatch.undo()
    usage = shutil.disk_usage(tmp_path)._replace(free=1500)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(preflight.PreflightError, match=r"1.5 kB are free in .*: make room"):
        lines(tmp_path)


def test_a_batch_that_does_not_divide_is_an_error(tmp_path):
    odd = tiny.net_stage(batches=lambda previous: tiny.Batches(batch_size=6))
    with pytest.raises(ValueError, match="6 examples does not divide over 4 devices"):
        lines(tmp_path, odd, devices=4)


def test_stages_that_are_complete_and_checkpoints_that_are_there_count(tmp_path):
    before = lines(tmp_path)[-1]
    (tmp_path / "first").mkdir()
    (tmp_path / "first/result.json").write_text('{"metrics": {}, "steps": [20]}')
    for step in (10, 20):
        (tmp_path / "second/checkpoints" / str(step)).mkdir(parents=True)
    said = lines(tmp_path)
    assert said[0] == "stage first: 20 steps, complete"
    more = [re.search(r"kept; ([\d.]+) kB more", line)[1] for line in (before, said[-1])]
    assert float(more[0]) / float(more[1]) == pytest.approx(6 / 4, rel=0.02)


def test_what_has_begun_and_what_is_to_go_on_is_told(tmp_path):
    (tmp_path / "first/checkpoints/10").mkdir(parents=True)
    assert lines(tmp_path)[0] == "stage first: 20 steps, goes on from step 10"
    (tmp_path / "first/result.json").write_text('{"metrics": {}, "steps": [10]}')
    assert lines(tmp_path)[0] == "stage first: 20 steps, complete with 10, goes on"
