import contextlib
import json
import math
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import killed_run
import numpy as np
import pytest
import tiny
from places import SUPPORT
from small_disks import small_disk

from majl_jax import parallel
from majl_jax.training import loop, optimizer, restore, run_log, schedules
from majl_jax.training.step_metrics import NonFiniteError

OPTIONS = {"log_every_steps": 5, "evaluate_every_steps": 20, "checkpoint_every_steps": 10}
# Orbax leaves coroutines behind when a file turns out to be damaged, or cannot be written.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SCRIPT = SUPPORT / "killed_run.py"


def run(stages, workdir, **options):
    stages = stages if isinstance(stages, tuple) else (stages,)
    devices = options.pop("devices", jax.devices()[:1])
    options = loop.Options(**{**OPTIONS, **options})
    return loop.run(stages, workdir, jax.random.key(0), options, devices=devices)


def rows(workdir):
    """The lines of metrics.jsonl without what differs from run to run."""
    drop = ("time_s", "steps_per_s")
    return [
        {k: v for k, v in row.items() if k not in drop} for row in run_log.read_metrics(workdir)
    ]


def last(workdir, stage="first"):
    return restore.load_variables(workdir, stage, "last")[0]


def never(*args):
    raise AssertionError("this was not to be called")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of one line stage that nothing has disturbed."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, run(tiny.line_stage(), workdir)


# ---- stages --------------------------------------------------------------------------------------


def test_stages_hand_over_the_best_and_are_done_once(tmp_path):
    scores, previous_seen, tested = iter([1.0, 5.0, math.nan, 2.0]), [], []

    def init(key, previous):
        previous_seen.append(previous)
        return tiny.line_init(key, previous)

    def evaluate(variables):
        evaluated.append(np.asarray(variables["params"]["body"]["w"]))
        return {"score": next(scores)}

    def test(variables, folder):
        tested.append(np.asarray(variables["params"]["body"]["w"]))
        (folder / "tracks.jsonl").write_text("{}\n")
        return {"sdr_db": 7.5, "undefined": math.nan}

    evaluated: list = []
    first = tiny.line_stage("first", 35, init=init, evaluate=evaluate, best="score", test=test)
    second = tiny.line_stage("second", 3, init=init, evaluate=None)
    results = run((first, second), tmp_path, evaluate_every_steps=10)
    assert results["first"]["sdr_db"] == 7.5 and math.isnan(results["first"]["undefined"])
    assert results["second"] == {}
    # the best was the second evaluation, of step 20: it is tested and handed over
    np.testing.assert_array_equal(tested, [evaluated[1]])
    assert previous_seen[0] is None
    np.testing.assert_array_equal(previous_seen[1]["params"]["body"]["w"], evaluated[1])
    assert isinstance(previous_seen[1]["params"]["body"]["w"], np.ndarray)
    assert restore.load_variables(tmp_path, "first")[1]["step"] == 20
    written = json.loads((tmp_path / "first" / "result.json").read_text())
    metrics = {"sdr_db": 7.5, "undefined": None}
    about = {"format": 1, "step": 20, "steps": [20], "trained_steps": 35}
    assert written == {**about, "metrics": metrics}
    assert (tmp_path / "first" / "tracks.jsonl").exists()

    before = rows(tmp_path)
    assert [(r["step"], r["kind"]) for r in before if r["stage"] == "first"][-3:] == [
        (35, "train"),
        (35, "valid"),
        (20, "test"),
    ]
    again = [
        tiny.line_stage(s.name, s.steps, init=never, batches=never, evaluate=never, test=never)
        for s in (first, second)
    ]
    assert str(run(tuple(again), tmp_path)) == str(results)
    assert rows(tmp_path) == before


def test_what_is_logged(finished):
    workdir, results = finished
    lines = rows(workdir)
    assert [(r["kind"], r["step"]) for r in lines] == [
        ("train", 5),
        ("train", 10),
        ("train", 15),
        ("train", 20),
        ("valid", 20),
    ]
    terms = {"loss", "mse", "noise", "grad_norm", "learning_rate"}
    assert set(lines[0]) == {"stage", "step", "kind"} | terms
    assert results == {"first": {"score": lines[-1]["score"]}}
    # a step's randomness is fold_in(key, step), and a line is the mean since the line before
    key = jax.random.fold_in(jax.random.key(0), 0)
    noise = [jax.random.normal(jax.random.fold_in(key, step), ()) for step in range(5, 10)]
    np.testing.assert_allclose(lines[1]["noise"], np.mean(noise), rtol=1e-5)
    assert float(last(workdir)["state"]["seen"]) == 20


def test_step_metrics_stay_on_the_device_between_log_lines(tmp_path, monkeypatch):
    calls, on_host = [], parallel.on_host
    monkeypatch.setattr(parallel, "on_host", lambda tree: calls.append(1) or on_host(tree))
    options = {"log_every_steps": 20, "evaluate_every_steps": 40, "checkpoint_every_steps": 40}
    run(tiny.line_stage(steps=40), tmp_path, **options)
    assert len(calls) <= 2 + 1 + 3  # two lines, one empty fetch before the save, three parts


# ---- resuming ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_kill_9_anywhere_changes_nothing(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"

    def start(where):
        command = [sys.executable, str(SCRIPT), str(killed), where]
        # What an earlier process compiled is used again, and must not change a bit either.
        cache = {
            "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        return subprocess.run(
            command,
            env={**os.environ, **cache},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def steps():
        return sorted(int(p.name) for p in (killed / "first/checkpoints").glob("[0-9]*[0-9]"))

    assert start("before the first save").returncode == -signal.SIGKILL
    assert steps() == []
    assert start("in an evaluation").returncode == -signal.SIGKILL
    assert steps() == [10, 20]
    assert start("inside a save").returncode == -signal.SIGKILL
    assert steps() == [10, 20] and list((killed / "first/checkpoints").glob("30.orbax*"))
    ended = start("SIGTERM")
    assert ended.returncode == 0, ended.stderr
    assert "run the same command again to go on" in ended.stdout
    assert steps()[-1] not in (30, 60), "SIGTERM saves where it stands"
    assert start("in the test").returncode == -signal.SIGKILL
    ended = start("nowhere")
    assert ended.returncode == 0, ended.stderr
    assert "first: complete already" in ended.stdout and "going on from step 15" in ended.stdout

    results = killed_run.run(whole)
    assert str(results) in ended.stdout
    for stage in ("first", "second"):
        tiny.assert_equal(last(killed, stage), last(whole, stage))
    assert rows(killed) == rows(whole)


def test_sigterm_in_an_evaluation_or_a_test_stops_at_once(tmp_path, finished, capsys):
    seen = []

    def terminate(variables, *folder):
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append("the signal was ignored")
        return {}

    before = signal.getsignal(signal.SIGTERM)
    for stage in (
        tiny.line_stage(evaluate=terminate),
        tiny.line_stage(test=terminate),
        tiny.line_stage(init=lambda key, previous: terminate(None)),
    ):
        with pytest.raises(SystemExit) as ended:
            run(stage, tmp_path)
        assert ended.value.code == 0
        assert signal.getsignal(signal.SIGTERM) is before
    assert not seen
    assert "run the same command again to go on" in capsys.readouterr().out
    assert not (tmp_path / "first" / "result.json").exists()
    run(tiny.line_stage(), tmp_path)
    assert "going on from step 20" in capsys.readouterr().out
    tiny.assert_equal(last(tmp_path), last(finished[0]))
    assert rows(tmp_path) == rows(finished[0])


def test_ctrl_c_saves_too(tmp_path):
    def hook(taken, x):
        if taken == 13:
            os.kill(os.getpid(), signal.SIGINT)

    stage = tiny.line_stage(steps=2000, batches=lambda previous: tiny.Batches(hook=hook))
    with pytest.raises(SystemExit) as ended:
        run(stage, tmp_path, checkpoint_every_steps=1000)
    assert ended.value.code == 130
    saved = restore.choose_step(tmp_path, "first", "last")
    assert 10 <= saved < 1000 and float(last(tmp_path)["state"]["seen"]) == saved


def interrupted(tmp_path, **changes):
    """A run that died at step 13, after the checkpoint of step 10."""

    def hook(taken, x):
        if taken > 13:
            raise OSError("the data went away")

    batches = changes.pop("batches", lambda hook: tiny.Batches(hook=hook))
    with pytest.raises(OSError, match="the data went away"):
        run(tiny.line_stage(batches=lambda previous: batches(hook), **changes), tmp_path)


def test_the_input_goes_on_from_its_saved_position(tmp_path, finished):
    interrupted(tmp_path)
    made = []
    stage = tiny.line_stage(batches=lambda previous: made.append(tiny.Batches()) or made[0])
    run(stage, tmp_path)
    assert made[0].restored == 10
    tiny.assert_equal(last(tmp_path), last(finished[0]))
    assert rows(tmp_path) == rows(finished[0])


@pytest.mark.slow
def test_a_plateau_lowers_the_rate_and_a_resumed_run_knows(tmp_path):
    changes = {
        "plateau": schedules.Plateau("loss", patience=0),
        "optimizer": optimizer.optimizer(1e-2, plateau=True),
        "evaluate": lambda variables: {"score": 0.0, "loss": 1.0},
    }
    options = {"log_every_steps": 2, "evaluate_every_steps": 2, "checkpoint_every_steps": 4}
    for folder, stop in (("cut", 11), ("whole", 99)):
        hook = {"hook": lambda taken, x, stop=stop: away(taken > stop)}
        with contextlib.suppress(OSError):
            batches = lambda previous, hook=hook: tiny.Batches(**hook)  # noqa: E731
            run(tiny.line_stage(batches=batches, **changes), tmp_path / folder, **options)
    run(tiny.line_stage(**changes), tmp_path / "cut", **options)
    tiny.assert_equal(last(tmp_path / "cut"), last(tmp_path / "whole"))
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    factors = [row["plateau_factor"] for row in rows(tmp_path / "cut") if "plateau_factor" in row]
    assert factors == [1.0] * 2 + [0.5**n for n in range(1, 9)]


def test_an_input_without_positions_is_read_again(tmp_path, finished, capsys):
    interrupted(tmp_path, batches=lambda hook: iter(list_of(14, hook)))
    run(tiny.line_stage(batches=lambda previous: iter(list_of(20))), tmp_path)
    tiny.assert_equal(last(tmp_path), last(finished[0]))


def list_of(count, hook=None):
    batches = tiny.Batches()
    for taken in range(1, count + 1):
        if hook is not None:
            hook(taken, None)
        yield next(batches)


def test_a_damaged_newest_checkpoint_falls_back_and_ends_the_same(tmp_path, finished, capsys):
    interrupted(tmp_path, steps=30)
    # the same run again, up to 20; then its newest checkpoint loses a part
    with pytest.raises(OSError, match="away"):
        hook = {"hook": lambda taken, x: never() if taken > 99 else away(taken > 22)}
        run(tiny.line_stage(steps=30, batches=lambda previous: tiny.Batches(**hook)), tmp_path)
    files = (tmp_path / "first" / "checkpoints" / "20" / "rest").rglob("*")
    file = max((p for p in files if p.is_file()), key=lambda p: p.stat().st_size)
    file.write_bytes(file.read_bytes()[:100])
    run(tiny.line_stage(steps=30), tmp_path)
    said = capsys.readouterr().out
    assert "the checkpoint of step 20 is damaged" in said and "going on from step 10" in said
    run(tiny.line_stage(steps=30), tmp_path / "whole")
    tiny.assert_equal(last(tmp_path), last(tmp_path / "whole"))
    assert rows(tmp_path) == rows(tmp_path / "whole")


def away(now):
    if now:
        raise OSError("the data went away")


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path, finished):
    with small_disk(tmp_path / "disk", "1m") as disk:

        def fill(variables):
            with pytest.raises(OSError, match="No space"):
                (disk / "filler").write_bytes(bytes(2**21))
            return {"score": 0.0}

        with pytest.raises(
            (restore.CheckpointError, OSError), match=r"(?s)could not.*(whole|no earlier one)"
        ):
            run(tiny.line_stage(evaluate=fill), disk / "run", evaluate_every_steps=10)
        (disk / "filler").unlink()
        run(tiny.line_stage(), disk / "run")
        tiny.assert_equal(last(disk / "run"), last(finished[0]))


def test_another_seed_is_refused(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(ValueError, match="made with another seed"):
        loop.run([tiny.line_stage()], tmp_path, jax.random.key(1), loop.Options(**OPTIONS))


# ---- bad steps -----------------------------------------------------------------------------------


def poisoned(*bad):
    """Batches with a NaN in the input of these steps."""

    def hook(taken, x):
        if taken in bad:
            x[0, 0, 0] = np.nan

    return {"batches": lambda previous: tiny.Batches(hook=hook)}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(NonFiniteError) as error:
        run(tiny.line_stage(**poisoned(13, 14)), tmp_path)
    text = str(error.value)
    assert "stage 'first', step 13: not finite: loss, mse, grad_norm" in text
    assert "on_nonfinite='skip'" in text and "noise" not in text.split("(")[0]
    assert restore.choose_step(tmp_path, "first", "last") == 10
    assert all(np.all(np.isfinite(x)) for x in tiny.leaves(last(tmp_path)))
    assert rows(tmp_path)[-1]["step"] == 10


def test_bad_steps_can_be_skipped_and_are_counted(tmp_path):
    run(tiny.line_stage(**poisoned(3, 13, 14)), tmp_path, on_nonfinite="skip")
    assert [row["skipped"] for row in rows(tmp_path) if row["kind"] == "train"] == [1, 1, 3, 3]
    assert all(math.isfinite(row["loss"]) for row in rows(tmp_path) if row["kind"] == "train")
    variables = last(tmp_path)
    assert float(variables["state"]["seen"]) == 17, "a skipped step changes no mutables either"


def test_too_many_bad_steps_in_a_row_stop_the_run(tmp_path):
    stage = tiny.line_stage(steps=150, evaluate=None, **poisoned(*range(20, 200)))
    with pytest.raises(NonFiniteError, match="101 steps in a row were bad"):
        run(stage, tmp_path, on_nonfinite="skip")


def test_an_update_or_a_statistic_that_is_not_finite_is_bad_too(tmp_path):
    def loss(params, mutables, batch, key):
        value, (mutables, terms) = tiny.line_loss(params, mutables, batch, key)
        seen = mutables["state"]["seen"]
        return value, ({"state": {"seen": jnp.where(seen > 3, jnp.inf, seen)}}, terms)

    with pytest.raises(NonFiniteError, match="step 4: not finite: mutables"):
        run(tiny.line_stage(loss=loss), tmp_path)


def test_a_term_that_is_only_shown_may_be_undefined(tmp_path):
    def loss(params, mutables, batch, key):
        value, (mutables, terms) = tiny.line_loss(params, mutables, batch, key)
        return value, (mutables, {**terms, "ratio": jnp.zeros(()) / 0})

    run(tiny.line_stage(loss=loss), tmp_path)
    assert "mse" in rows(tmp_path)[0] and "ratio" not in rows(tmp_path)[0]


# ---- what a stage may and may not do -------------------------------------------------------------


def test_only_trainable_leaves_change(tmp_path):
    stage = tiny.line_stage(trainable=(("body/.*", False), (".*", True)))
    run(stage, tmp_path)
    fresh = tiny.line_init(jax.random.fold_in(jax.random.key(0), 0))["params"]
    tiny.assert_equal(last(tmp_path)["params"]["body"], jax.device_get(fresh["body"]))
    assert np.all(last(tmp_path)["params"]["head"]["w"] != fresh["head"]["w"])


def test_with_one_seed_networks_start_alike_in_every_stage_and_their_steps_differ(tmp_path):
    kept = (("body/.*", False), (".*", True))
    run(tuple(tiny.line_stage(name=name, trainable=kept) for name in ("one", "two")), tmp_path)
    tiny.assert_equal(*(last(tmp_path, name)["params"]["body"] for name in ("one", "two")))
    noise = {(row["stage"], row["step"]): row.get("noise") for row in rows(tmp_path)}
    assert noise["one", 5] != noise["two", 5]


@pytest.mark.parametrize("of_mean", [9.0, 4.0, math.nan])
def test_a_mean_of_checkpoints_is_handed_over_only_where_it_validates_better(tmp_path, of_mean):
    scores = iter([1.0, 5.0, math.nan, 2.0, of_mean])
    evaluated, tested, handed = [], [], []

    def evaluate(variables):
        evaluated.append(np.asarray(variables["params"]["body"]["w"]))
        return {"score": next(scores)}

    def test(variables, folder):
        tested.append(np.asarray(variables["params"]["body"]["w"]))
        return {}

    def init(key, previous):
        handed.append(previous["params"]["body"]["w"])
        return tiny.line_init(key, None)

    first = tiny.line_stage("first", 40, evaluate=evaluate, best="score", test=test, average=2)
    second = tiny.line_stage("second", 3, init=init, evaluate=None)
    run((first, second), tmp_path, evaluate_every_steps=10, keep_best=2)
    better = of_mean > 5.0
    expected = (evaluated[1] + evaluated[3]) / 2 if better else evaluated[1]
    loaded = restore.load_variables(tmp_path, "first")[0]
    for found in (tested[0], handed[0], loaded["params"]["body"]["w"]):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(evaluated[4], (evaluated[1] + evaluated[3]) / 2, rtol=1e-6)
    assert np.abs(evaluated[1] - evaluated[3]).max() > 1e-3
    result = json.loads((tmp_path / "first/result.json").read_text())
    assert result["steps"] == ([20, 40] if better else [20])
    seen = None if math.isnan(of_mean) else of_mean
    assert result["candidates"] == [
        {"steps": [20], "score": 5.0},
        {"steps": [40], "score": 2.0},
        {"steps": [20, 40], "score": seen},
    ]
    # Statistics are averaged with the parameters: this one counts the steps.
    assert loaded["state"]["seen"] == (30 if better else 20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"average": 2}, r"averages its 2 best checkpoints, but keeps 1: raise"),
        ({"trainable": (("head/.*", True),)}, "no pattern of trainable matches"),
        ({"trainable": (("hat/.*", False), (".*", True))}, "match no parameter"),
        ({"init": lambda key, previous: {"state": {}}}, "expected 'params'"),
        ({"best": "sdr"}, r"picks its best by 'sdr', but its evaluate gives \['score'\]"),
        ({"plateau": schedules.Plateau("loss")}, r"lowers its rate by 'loss', but its evaluate"),
        ({"batches": lambda previous: list_of(7)}, "ended before batch 20"),
        ({"batches": lambda previous: tiny.Batches(batch_size=6)}, "does not divide over 4"),
        (
            {"loss": lambda p, m, b, k: (tiny.line_loss(p, m, b, k)[0], ({}, {}))},
            "other mutables than it was given",
        ),
        (
            {"loss": lambda p, m, b, k: (tiny.line_loss(p, m, b, k)[0], (m, {"x": jnp.ones(2)}))},
            r"loss term 'x' has shape \(2,\)",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(tiny.line_stage(**changes), tmp_path, devices=None)


def test_options_are_checked(tmp_path):
    for options, message in (
        ({"log_every_steps": 0}, "log_every_steps is 0"),
        ({"on_nonfinite": "ignore"}, "expected 'stop' or 'skip'"),
        ({"keep_last": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            run(tiny.line_stage(), tmp_path, **options)
    with pytest.raises(ValueError, match="'first' has 0 steps"):
        run(tiny.line_stage(steps=0), tmp_path)
    for name in ("tensorboard", "a/b", ""):
        with pytest.raises(ValueError, match="cannot be named"):
            run(tiny.line_stage(name), tmp_path)
    with pytest.raises(ValueError, match="different names"):
        run((tiny.line_stage(), tiny.line_stage()), tmp_path)
