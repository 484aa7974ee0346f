"""The numbers of all configs: each has a rule, and what a rule refuses is told before training."""

import importlib
import math

import numpy as np
import pytest
import smoke_runs
from places import ROOT

from majl_jax.recipes import majl, ranges

NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
PRESETS = ("paper", "quickstart", "experiment", "smoke")
MORE = {"majl": ("voice",), "mixit": ("paper_small", "paper_large"), "jukebox": ("released_code",)}


def _changed(config, field, value):
    group, _, name = field.rpartition(".")
    config = config.copy_and_resolve_references()
    part = config
    for step in filter(None, group.split(".")):
        part = part[step]
    with part.ignore_type():
        part[name] = value
    return config


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_every_config_has_a_rule_and_keeps_it(name):
    for preset in (*PRESETS, *MORE.get(name, ())):
        ranges.check_ranges(smoke_runs.load_config(name, preset))
    config = smoke_runs.load_config(name)
    config.unlock()
    config.data.loudness = 1.5
    with pytest.raises(LookupError, match=r"--config.data.loudness has no rule"):
        ranges.check_ranges(config)


@pytest.mark.parametrize("name", NAMES)
def test_no_number_may_be_nan_infinite_or_none(name):
    for field, value in ranges.fields(smoke_runs.load_config(name).to_dict()):
        rule = ranges.rule_of(f"{name}.{field}")
        if isinstance(rule, ranges.Range):
            for wrong in (math.nan, None, "1", True, (), (value, math.inf)):
                assert wrong not in rule, field


@pytest.mark.parametrize(
    ("name", "field", "value", "wanted"),
    [
        ("majl", "data.labelled_share", 3.0, "a number, above 0, at most 1"),
        ("majl", "pseudo_labels.threshold", 7.0, "a number, at least 0, at most 1"),
        ("majl", "pseudo_labels.granularity", "frames", "one of frame, segment, song"),
        ("majl", "evaluation.overlap", 1.0, "a number, at least 0, below 1"),
        ("majl", "optimizer.clip_norm", -1.0, r"a number, at least 0 \(0: no clipping\)"),
        ("majl", "optimizer.clip_norm", None, r"a number, at least 0 \(0: no clipping\)"),
        ("majl", "optimizer.decay_factor", 1.5, "a number, above 0, at most 1"),
        ("majl", "stages.student.steps", 0, "a whole number, at least 1"),
        ("majl", "stages.student.batch_size", -8, "a whole number, at least 1"),
        ("majl", "stages.naive_joint.learning_rate", 0.0, "a number, above 0"),
        ("majl", "unet.dropout", 1.0, "a number, at least 0, below 1"),
        ("majl", "unet.channels", (2, 0, 2), "a whole number, at least 1"),
        ("majl", "weights.pitch", -1.0, "a number, at least 0"),
        ("majl", "seed", 2**32, "a whole number, at least 0, at most 4294967295"),
        ("ss_mpe", "network.initial_salience", 0.0, "a number, above 0, below 1"),
        ("ss_mpe", "self_supervision.stretch", 0.5, "a number, at least 1"),
        ("ss_mpe", "front_end.harmonics", (), "a number, above 0"),
        ("transfer", "evaluation.mixing", "coherrent", "one of coherent, incoherent"),
        ("transfer", "augmentation.rates", (1.2, 0.8), "two numbers, the lower one first, above 0"),
        ("transfer", "optimizer.clip_percentile", 101.0, "a number, at least 0, at most 100"),
        ("mixit", "stages.scratch.warmup_steps", 1, "a whole number, at least 2"),
        ("mixit", "stages.pretrain.snr_db", (5.0, -5.0), "two numbers, the lower one first"),
        ("mixit", "stages.scratch.inactive_db", 0.0, "a number, below 0"),
        ("mixit", "network.dtype", "float64", "one of float32, bfloat16"),
        ("jukebox", "codebook.decay", 1.0, "a number, at least 0, below 1"),
        ("jukebox", "losses.resolutions", ((64, 16, 0),), "a whole number, at least 1"),
        ("jukebox", "train.keep_last", 0, "a whole number, at least 1"),
    ],
)
def test_what_is_out_of_range_is_told_before_anything_is_opened(
    tmp_path, name, field, value, wanted
):
    config = _changed(smoke_runs.load_config(name), field, value)
    recipe = importlib.import_module(f"majl_jax.recipes.{name}")
    with pytest.raises(ValueError, match=f"^--config.{field} is .*; expected {wanted}$"):
        recipe.stages(config, tmp_path)


def test_all_faults_are_told_at_once_in_one_line():
    config = _changed(smoke_runs.load_config("majl"), "data.labelled_share", 0.0)
    config = _changed(config, "evaluation.pitch_threshold", 2.0)
    with pytest.raises(ValueError, match=r"labelled_share is 0\.0; .* is 2\.0; expected") as caught:
        ranges.check_ranges(config)
    assert "\n" not in str(caught.value)


def test_a_clip_norm_of_0_clips_nothing():
    config = smoke_runs.load_config("majl")
    params = {"w": np.zeros(3, np.float32)}
    updates = {}
    for clip_norm in (0.0, 1e9):
        config.optimizer.clip_norm = clip_norm
        optimizer = majl._optimizer(config.optimizer, config.stages.teacher)
        state = optimizer.init(params)
        for gradient in (1.0, 100.0):
            moved, state = optimizer.update({"w": np.full(3, gradient, np.float32)}, state, params)
        updates[clip_norm] = np.asarray(moved["w"])
    np.testing.assert_array_equal(updates[0.0], updates[1e9])
    assert np.all(updates[0.0] < 0)
