"""Sets without the labels that a stage needs are refused before any stage trains, by every
recipe.
"""

import dataclasses
import re

import made_music
import pytest
import smoke_runs

from majl_jax.datasets import builder, records
from majl_jax.recipes import labels
from majl_jax.separate import loading
from majl_jax.training import restore
from majl_jax.training.manifest import write_manifest

pytestmark = pytest.mark.xdist_group("majl")


def _strip(source, target, *, stems=True, pitch=True, splits=("train", "valid", "test")):
    """The same set without labels of stems, of pitch, or with fewer splits."""
    made = {}
    for split in splits:
        made[split] = list(records.read_records(source, split))
        for record in made[split]:
            record["has_stems"] = record["has_stems"] & stems
            record["has_pitch"] = record["has_pitch"] & pitch
    layout = records.open_prepared(source).layout
    builder.write_dataset(target, made, layout=layout)


@pytest.mark.parametrize(
    ("fields", "without", "message"),
    [
        (
            {},
            {"pitch": False},
            "has pitch of soprano, which config.weights.pitch = 1 needs; what is there fits"
            " transfer, jukebox, mixit and, as config.data.stems_only, majl",
        ),
        (
            {"run": ("pipeline",)},
            {"stems": False},
            "has stems of soprano, which config.weights.separation = 1 needs; what is there fits"
            " ss_mpe and, as config.data.pitch_only, majl",
        ),
        (
            {"weights__pitch": 0.0, "weights__pitch_on_target": 0.0},
            {},
            "config.weights.pitch and pitch_on_target are 0: the teacher would hear no pitch",
        ),
        ({}, {"splits": ("train", "valid")}, "has no split test, only train, valid; prepare"),
        ({"data__stems_only": "chorales_pitch"}, {}, "config.data.stems_only = chorales_pitch"),
        ({"data__pitch_only": "chorales_stems"}, {}, "config.data.pitch_only = chorales_stems"),
        ({"data__stems_only": "stemz"}, {}, r"No prepared data set in \S*stemz"),
        ({"data__without_target": "backing"}, {}, r"No prepared data set in \S*backing"),
        ({"data__without_target": "chorales_stems"}, {}, "has the stem soprano: expected music in"),
    ],
)
def test_majl_looks_at_the_sets_of_all_its_stages(smoke, tmp_path, fields, without, message):
    config = smoke.config("majl", run=("teacher", "student"))
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in fields.items()})
    if without:
        for name in ("chorales_stems", "chorales_pitch"):
            (tmp_path / name).symlink_to(smoke.data("majl") / name)
        _strip(smoke.data("majl") / "chorales", tmp_path / "chorales", **without)
        config.data.directory = str(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        smoke_runs.stages(config, tmp_path)
    assert "\n" not in str(caught.value).partition("Make it with")[0]


def test_trained_apart_stems_and_pitch_have_to_meet_in_a_record(smoke, tmp_path):
    source, made = smoke.data("majl") / "chorales", {}
    for split in ("train", "valid", "test"):
        made[split] = list(records.read_records(source, split))
        for number, record in enumerate(made[split]):
            record["has_stems"] = record["has_stems"] & bool(number % 2)
            record["has_pitch"] = record["has_pitch"] & (not number % 2)
    layout = records.open_prepared(source).layout
    builder.write_dataset(tmp_path / "chorales", made, layout=layout)
    fields = {"data__directory": str(tmp_path), "weights__pitch_on_target": 0.0}
    apart, joint = (
        smoke.config("majl", run=(run,), **fields) for run in ("pipeline", "naive_joint")
    )
    with pytest.raises(ValueError, match=r"has stems with pitch of soprano, which .*pitch = 1"):
        smoke_runs.stages(apart, tmp_path)
    smoke_runs.stages(joint, tmp_path)


def test_music_without_the_target_teaches_silence(smoke, tmp_path):
    config = smoke.config("majl", run=("teacher",))
    for one in smoke.data("majl").iterdir():
        (tmp_path / one.name).symlink_to(one)
    layout = records.open_prepared(smoke.data("majl") / "chorales_stems").layout
    without = dataclasses.replace(
        layout, stems=tuple(f"part {n}" for n in range(len(layout.stems)))
    )
    pieces = records.read_records(smoke.data("majl") / "chorales_stems", "train")
    builder.write_dataset(tmp_path / "backing", {"train": pieces}, layout=without)
    config.data.directory = str(tmp_path)
    config.data.update(without_target="backing", without_target_share=0.5)
    config.stages.teacher.batch_size = 4
    (teacher,) = smoke_runs.stages(config, tmp_path)
    batch = next(teacher.batches(None))
    silent = ~batch["stems"][:, :, 0].any((1, 2)) & batch["stems"].any((1, 2, 3))
    assert silent.sum() == 2
    assert batch["has_stems"][silent].all() and batch["has_pitch"][silent][:, :, 0].all()
    assert not batch["f0_hz"][silent][:, :, 0].any()


@pytest.mark.parametrize(
    ("name", "data_set", "fields", "who"),
    [
        ("ss_mpe", "chorales", {}, "config.weights.supervised = 1"),
        ("transfer", "choir", {"run": ("scratch",)}, "stage scratch (config.stages.scratch.data)"),
        ("mixit", "few/band", {"run": ("scratch",)}, "stage scratch (config.data.labelled)"),
        ("jukebox", "band", {"run": ("vqvae", "encoder")}, "config.data.labelled needs those"),
    ],
)
def test_the_other_recipes_look_too(smoke, tmp_path, name, data_set, fields, who):
    config = smoke.config(name, **fields)
    for other in smoke.data(name).iterdir():
        if other.name != data_set.split("/")[0]:
            (tmp_path / other.name).symlink_to(other)
    (tmp_path / data_set).parent.mkdir(exist_ok=True)
    _strip(smoke.data(name) / data_set, tmp_path / data_set, stems=False, pitch=False)
    config.data.directory = str(tmp_path)
    with pytest.raises(ValueError, match=re.escape(who)):
        smoke_runs.stages(config, tmp_path)


def test_one_record_with_a_label_is_enough(tmp_path):
    """In the last record of the last track; a label of another stem does not count."""
    track, layout = made_music.tones("z", frames=480), made_music.LAYOUT
    track["has_pitch"][:-1, 0] = False
    pieces = [*records.cut(made_music.tones("a", has_pitch=False), layout)]
    builder.write_dataset(
        tmp_path / "late", {"train": [*pieces, *records.cut(track, layout)]}, layout=layout
    )
    prepared = records.open_prepared(tmp_path / "late")
    for what in (labels.PITCH, labels.STEMS, labels.BOTH):
        labels.require(prepared, "train", {"it": what}, stem=0)
    builder.write_dataset(tmp_path / "none", {"train": pieces}, layout=layout)
    prepared = records.open_prepared(tmp_path / "none")
    with pytest.raises(ValueError, match="has pitch, which it needs; what is there fits transfer"):
        labels.require(prepared, "train", {"it": labels.PITCH})


@pytest.mark.parametrize("learnt", [True, False])
def test_a_pitch_estimator_that_heard_no_label_is_not_applied(smoke, tmp_path, monkeypatch, learnt):
    write_manifest(tmp_path, smoke.config("majl", run=("teacher",)), seed=0)
    line = '{"stage": "teacher", "step": 2, "kind": "train", "time_s": 1.0, "separation": 0.5,'
    (tmp_path / "metrics.jsonl").write_text(f'{line} "pitch": {0.3 if learnt else 0.0}}}\n')
    meta = {"stage": "teacher", "step": 2}
    monkeypatch.setattr(restore, "load_variables", lambda *which: ({}, meta))
    model, _, label = loading.load_run(tmp_path)
    assert (model.bin_cents is not None) == learnt
    assert ("no pitch, of which it heard no label" in str(label)) == (not learnt)
    assert model.stems == ("soprano",)
