"""What may differ when a run goes on, and what it means."""

import contextlib
import json
import re
import shutil

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import tiny
from jax.experimental.compilation_cache import compilation_cache

from majl_jax import parallel
from majl_jax.training import loop, manifest, optimizer, restore, run_log, schedules
from majl_jax.training.manifest import ConfigMismatchError, write_manifest

OPTIONS = {"log_every_steps": 5, "evaluate_every_steps": 10, "checkpoint_every_steps": 5}


def run(workdir, *stages, **options):
    found = loop.Options(**{**OPTIONS, **options})
    return loop.run(stages, workdir, jax.random.key(0), found, devices=jax.devices()[:1])


def last(workdir, stage="first"):
    return restore.load_variables(workdir, stage, "last")[0]


def result(workdir, stage="first"):
    return json.loads((workdir / stage / "result.json").read_text())


def kinds(workdir):
    rows = run_log.read_metrics(workdir)
    return [(row["kind"], row["step"]) for row in rows if row["kind"] != "train"]


def never(*arguments):
    raise AssertionError("this was not to be called")


def stops_after(taken_at_most):
    def hook(taken, x):
        if taken > taken_at_most:
            raise OSError("the data went away")

    return lambda previous: tiny.Batches(hook=hook)


# ---- steps ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_complete_stage_goes_on_to_more_steps(tmp_path, capsys):
    run(tmp_path / "longer", tiny.line_stage(steps=20))
    run(tmp_path / "longer", tiny.line_stage(steps=30))
    said = capsys.readouterr().out
    assert "first: complete with 20 steps, goes on to 30" in said
    assert "it has 30 steps now, before it had 20" in said and "learning rate depends" not in said
    run(tmp_path / "whole", tiny.line_stage(steps=30))
    tiny.assert_equal(last(tmp_path / "longer"), last(tmp_path / "whole"))
    assert result(tmp_path / "longer") == result(tmp_path / "whole")
    assert kinds(tmp_path / "longer") == kinds(tmp_path / "whole")
    # Killed on its way: still what was asked for.
    with pytest.raises(OSError, match="went away"):
        run(tmp_path / "longer", tiny.line_stage(steps=40, batches=stops_after(37)))
    assert not (tmp_path / "longer/first/result.json").exists()
    run(tmp_path / "longer", tiny.line_stage(steps=40))
    assert result(tmp_path / "longer")["trained_steps"] == 40


def test_a_schedule_that_depends_on_the_steps_is_told(tmp_path, capsys):
    def stage(steps):
        rate = schedules.warmup_cosine(1e-2, warmup_steps=2, total_steps=steps)
        made = optimizer.optimizer(rate, clip_norm=1.0)
        return tiny.line_stage(steps=steps, optimizer=made, trainable=((".*", True),))

    run(tmp_path, stage(20))
    capsys.readouterr()
    run(tmp_path, stage(40))
    (said,) = re.findall(
        r"its learning rate depends on their number. At step 20 it was (\S+) and would have been"
        r" (\S+):.* not what 40 steps from the start would have learned",
        capsys.readouterr().out,
    )
    was, now = (
        float(schedules.warmup_cosine(1e-2, warmup_steps=2, total_steps=steps)(19))
        for steps in (20, 40)
    )
    assert [float(value) for value in said] == pytest.approx([was, now], rel=1e-3)


def test_fewer_steps_than_were_trained_are_refused(tmp_path):
    run(tmp_path, tiny.line_stage(steps=20))
    for stages in (
        [tiny.line_stage(steps=10)],
        [tiny.line_stage("new"), tiny.line_stage(steps=10)],
    ):
        with pytest.raises(ValueError, match="trained 20 steps already, and 10 are wanted: ask"):
            loop.run(stages, tmp_path, jax.random.key(0), loop.Options(), begin=never)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="trained 20 steps already, and 10 are wanted"):
        loop.check_steps([tiny.line_stage(steps=10)], tmp_path)
    with pytest.raises(OSError, match="went away"):
        run(tmp_path / "cut", tiny.line_stage(steps=20, batches=stops_after(17)))
    with pytest.raises(ValueError, match="trained 15 steps already, and 12 are wanted"):
        run(tmp_path / "cut", tiny.line_stage(steps=12))


def test_what_a_later_stage_has_learned_from_stays(tmp_path):
    second = tiny.line_stage("second", steps=5)
    run(tmp_path, tiny.line_stage(steps=10), second)
    with pytest.raises(ValueError, match=rf"ask for 10 .* or remove {tmp_path}/second to train it"):
        run(tmp_path, tiny.line_stage(steps=20), second)
    assert result(tmp_path)["trained_steps"] == 10
    shutil.rmtree(tmp_path / "second")
    run(tmp_path, tiny.line_stage(steps=20), second)
    assert [result(tmp_path, name)["trained_steps"] for name in ("first", "second")] == [20, 5]


def test_a_result_from_before_steps_were_noted_is_complete(tmp_path):
    run(tmp_path, tiny.line_stage(steps=10))
    path = tmp_path / "first/result.json"
    old = {key: value for key, value in result(tmp_path).items() if key != "trained_steps"}
    path.write_text(json.dumps(old))
    run(tmp_path, tiny.line_stage(steps=10, init=never, evaluate=never))


# ---- evaluations ---------------------------------------------------------------------------------


def test_a_complete_stage_is_tested_again_with_other_settings(tmp_path, capsys):
    tested = []

    def test(variables, folder):
        tested.append(variables)
        return {"final": float(len(tested))}

    stage = tiny.line_stage(steps=20, best="score", test=test)
    run(tmp_path, stage, evaluated_with="a")
    again = tiny.line_stage(
        steps=20, best="score", test=test, init=never, batches=never, evaluate=never
    )
    before = result(tmp_path)
    assert run(tmp_path, again, evaluated_with="a") == {"first": {"final": 1.0}}
    assert run(tmp_path, again, evaluated_with="b") == {"first": {"final": 2.0}}
    assert "complete already, evaluated again with other settings" in capsys.readouterr().out
    tiny.assert_equal(tested[0], tested[1])
    after = {"metrics": {"final": 2.0}, "evaluated_with": "b"}
    assert result(tmp_path) == {**before, **after}
    assert [kind for kind, _ in kinds(tmp_path)].count("test") == 1
    assert run(tmp_path, again, evaluated_with="b") == {"first": {"final": 2.0}}
    assert [one for one in kinds(tmp_path) if one[0] != "test"] == [("valid", 10), ("valid", 20)]
    without_test = tiny.line_stage("other", steps=20)
    run(tmp_path, stage, without_test, evaluated_with="b")
    scored = tiny.line_stage("other", steps=20, evaluate=lambda variables: {"score": 7.0})
    assert run(tmp_path, stage, scored, evaluated_with="c")["other"] == {"score": 7.0}
    rows = [row for row in run_log.read_metrics(tmp_path) if row["stage"] == "other"]
    seen = [(row["kind"], row["step"]) for row in rows if row["kind"] != "train"]
    assert seen == [("valid", 10), ("valid_before", 20), ("valid", 20)]


def test_a_complete_stage_that_is_tested_again_keeps_what_was_compared(tmp_path):
    scores = iter([1.0, 5.0, 2.0, 6.0])
    stage = tiny.line_stage(
        steps=30,
        best="score",
        average=2,
        evaluate=lambda variables: {"score": next(scores)},
        test=lambda variables, folder: {"final": 1.0},
    )
    run(tmp_path, stage, evaluated_with="a", keep_best=2)
    before = result(tmp_path)
    assert [one["score"] for one in before["candidates"]] == [5.0, 2.0, 6.0]
    run(tmp_path, stage, evaluated_with="b", keep_best=2)
    assert result(tmp_path) == {**before, "evaluated_with": "b"}


def test_a_borrowed_stage_is_judged_by_its_own_run_alone(tmp_path, capsys):
    lender, borrower = tmp_path / "lender", tmp_path / "borrower"
    stage = tiny.line_stage(steps=5, test=lambda variables, folder: {"final": 1.0})
    run(lender, stage, evaluated_with="a")
    before = result(lender)
    borrower.mkdir()
    (borrower / "first").symlink_to(lender / "first")
    second = tiny.line_stage("second", steps=5)
    again = tiny.line_stage(steps=5, init=never, test=never)
    assert run(borrower, again, second, evaluated_with="b")["first"] == {"final": 1.0}
    assert result(lender) == before and result(borrower, "second")["evaluated_with"] == "b"
    assert f"first: complete already, evaluated with the settings of {lender}, whose" in (
        capsys.readouterr().out
    )


def test_a_borrowed_stage_does_not_go_on_in_the_folder_of_its_lender(tmp_path):
    lender, borrower = tmp_path / "lender", tmp_path / "borrower"
    run(lender, tiny.line_stage(steps=5))
    before = result(lender)
    borrower.mkdir()
    (borrower / "first").symlink_to(lender / "first")
    expected = re.escape(f"5 steps, 8 are wanted, but it is that of {lender}: ask for 5 steps, or")
    with pytest.raises(ValueError, match=expected):
        run(borrower, tiny.line_stage(steps=8, init=never))
    assert result(lender) == before


def test_checkpoints_are_compared_as_evaluations_are_made_now(tmp_path):
    def stage(scores, **changes):
        found = iter(scores)
        evaluate = lambda variables: {"score": next(found)}  # noqa: E731
        return tiny.line_stage(steps=40, best="score", evaluate=evaluate, **changes)

    options = {"checkpoint_every_steps": 10, "keep_best": 2}
    with pytest.raises(OSError, match="went away"):
        batches = stops_after(34)
        run(tmp_path, stage([9, 8, 7], batches=batches), evaluated_with="a", **options)
    # Kept are the last two, 20 and 30, and the best two, 10 and 20.
    run(tmp_path, stage([1, 5, 2, 3]), evaluated_with="b", **options)
    assert result(tmp_path)["step"] == 20
    rows = [row for row in run_log.read_metrics(tmp_path) if row["kind"] != "train"]
    found = [(row["kind"], row["step"], row["score"]) for row in rows]
    assert found == [
        *[("valid_before", 10, 9), ("valid_before", 20, 8), ("valid_before", 30, 7)],
        *[("valid", 10, 1), ("valid", 20, 5), ("valid", 30, 2), ("valid", 40, 3)],
    ]


def test_a_plateau_keeps_its_validations(tmp_path):
    def stage(**changes):
        return tiny.line_stage(
            steps=40,
            plateau=schedules.Plateau("score"),
            optimizer=optimizer.optimizer(1e-2, plateau=True),
            **changes,
        )

    with pytest.raises(OSError, match="went away"):
        run(tmp_path, stage(batches=stops_after(34)), evaluated_with="a")
    with pytest.raises(ValueError, match="'first' lowers its learning rate by its validations"):
        run(tmp_path, stage(), evaluated_with="b")
    run(tmp_path, stage(), evaluated_with="a")


def test_the_batch_size_is_no_setting_of_an_evaluation_unless_batches_are_counted():
    settings = ml_collections.ConfigDict({"overlap": 0.5, "batch_size": 8, "sets": ("a", "b")})
    same = ml_collections.ConfigDict({"overlap": 0.5, "batch_size": 1, "sets": ("a", "b")})
    other = ml_collections.ConfigDict({"overlap": 0.25, "batch_size": 8, "sets": ("a", "b")})
    marks = [manifest.mark(one) for one in (settings, same, other)]
    assert marks[0] == marks[1] != marks[2] and len(marks[0]) == 8
    # Of MixIT it says how many segments the counted batches have.
    counted = ml_collections.ConfigDict({"valid_batches": 50, "batch_size": 4})
    larger = ml_collections.ConfigDict({"valid_batches": 50, "batch_size": 8})
    assert manifest.mark(counted) != manifest.mark(larger)


# ---- config.json ---------------------------------------------------------------------------------

CONTENT = {"songs": {"train": 1, "test": 2}}


def config(**fields):
    made = ml_collections.ConfigDict(
        {
            "run": ("first", "second"),
            "stages": {name: {"steps": 10, "rate": 1e-3} for name in ("first", "second")},
            "data": {"directory": "here", "labelled": "songs"},
            "evaluation": {"overlap": 0.5, "select_best": True},
            "train": {"on_nonfinite": "stop", "evaluate_every_steps": 10},
        }
    )
    made.update_from_flattened_dict({key.replace("__", "."): v for key, v in fields.items()})
    return made


def starts(workdir, data=CONTENT, **fields):
    """Whether a run may go on with these fields."""
    with contextlib.suppress(FileNotFoundError):
        (workdir / "config.json").unlink()
    write_manifest(workdir, config(), seed=0, data=CONTENT)
    (workdir / "first/checkpoints/5").mkdir(parents=True, exist_ok=True)
    write_manifest(workdir, config(**fields), seed=0, data=data)
    return json.loads((workdir / "config.json").read_text())


@pytest.mark.parametrize(
    ("fields", "free"),
    [
        ({"stages__first__steps": 20}, True),
        ({"stages__first__rate": 1e-4}, False),
        ({"stages__second__rate": 1e-4}, True),
        ({"run": ("first", "second", "third")}, True),
        ({"run": ("first",)}, True),
        ({"run": ("second",)}, False),
        ({"data__directory": "there"}, True),
        ({"data__labelled": "others"}, False),
        ({"evaluation__overlap": 0.0}, True),
        ({"evaluation__select_best": False}, False),
        ({"train__on_nonfinite": "skip"}, True),
        ({"train__evaluate_every_steps": 5}, False),
    ],
)
def test_what_changed_nothing_that_was_learned_is_free(tmp_path, fields, free):
    (key,) = (name.replace("__", ".") for name in fields)
    if free:
        found = starts(tmp_path, **fields)
        value = next(iter(fields.values()))
        value = list(value) if isinstance(value, tuple) else value
        assert found["starts"][-1]["changed"][key][1] == value
        return
    with pytest.raises(ConfigMismatchError) as error:
        starts(tmp_path, **fields)
    assert f"\n  {key}: " in str(error.value) and "more steps, moved data" in str(error.value)


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        ({"songs": {"train": 9, "test": 2}}, {}, r"songs \(train\): another content there"),
        (
            {"songs": {"train": 1, "test": None}},
            {"data__directory": "there"},
            r"songs \(test\): whether the content is the same is not known",
        ),
        ({"songs": {"train": 1, "test": None}}, {}, None),
        ({**CONTENT, "more": {"test": 5}}, {"data__directory": "there"}, None),
    ],
)
def test_data_may_move_but_not_change(tmp_path, data, fields, message):
    if message is None:
        assert starts(tmp_path, data, **fields)["data"]["songs"]["train"] == 1
        return
    with pytest.raises(ConfigMismatchError, match=message):
        starts(tmp_path, data, **fields)


def test_other_devices_are_told(tmp_path, capsys):
    made = write_manifest(tmp_path, config(), seed=0)
    assert "goes on on" not in capsys.readouterr().out
    made["starts"][0]["hardware"]["devices"] = 64
    (tmp_path / "config.json").write_text(json.dumps(made))
    write_manifest(tmp_path, config(), seed=0)
    devices = f"{jax.device_count()} {jax.devices()[0].device_kind}"
    assert f"goes on on {devices}, before it was 64" in capsys.readouterr().out


# ---- compiled programs ---------------------------------------------------------------------------


def test_a_moved_workdir_finds_its_compiled_programs(tmp_path):
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_enable_xla_caches",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}

    def compile_in(folder):
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()
        parallel.cache_compilations(folder)
        jax.jit(lambda x: jnp.sin(x) + 41.0)(np.ones(7))
        return sorted(path.name for path in folder.glob("jit*-cache"))

    try:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        made = compile_in(tmp_path / "first")
        shutil.move(tmp_path / "first", tmp_path / "moved")
        assert made and compile_in(tmp_path / "moved") == made
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
