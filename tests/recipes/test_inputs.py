"""Batches that the devices cannot share and sets that do not fit are told before any stage trains,
also of stages that come late.
"""

import dataclasses
import re

import jax
import made_music
import pytest
import smoke_runs

from majl_jax.datasets import builder, records
from majl_jax.datasets.input.sources import Source
from majl_jax.recipes import inputs

SIZE = "config.stages.last.batch_size"


def _devices(monkeypatch, count):
    monkeypatch.setattr(jax, "device_count", lambda: count)


def test_the_share_of_a_device_and_what_to_do_where_there_is_none(monkeypatch):
    _devices(monkeypatch, 8)
    assert inputs.device_share(SIZE, 24) == 3
    assert inputs.device_share(SIZE, 32, least=4, multiple=2) == 4
    why = {"least": 4, "because": "why"}
    for size, how, message in (
        (20, {}, "a multiple of 8: take 24, or hide all but 5 devices (docs/clusters.md)"),
        (24, why, "a multiple of 8 from 32 on (why): take 32, or hide all but 6 devices (docs/"),
        (24, {"multiple": 2}, "a multiple of 16: take 32, or hide all but 6 devices (docs/"),
        (9, {"least": 2}, "a multiple of 8 from 16 on: take 16, or hide all but 3 devices (docs/"),
        (1, {"least": 2}, "a multiple of 8 from 16 on: take 16"),
    ):
        message = re.escape(f"{SIZE} is {size}, over 8 devices; expected {message}")
        with pytest.raises(ValueError, match=f"^{message}"):
            inputs.device_share(SIZE, size, **how)
    _devices(monkeypatch, 1)
    assert inputs.device_share(SIZE, 7) == 7
    with pytest.raises(ValueError, match=r"is 7, over 1 device; expected a multiple of 2: take 8$"):
        inputs.device_share(SIZE, 7, multiple=2)


def _of(recipe, fields, message):
    return pytest.param(recipe, fields, message, marks=pytest.mark.xdist_group(recipe))


@pytest.mark.parametrize(
    ("recipe", "fields", "message"),
    [
        _of("majl", {"stages__student__batch_size": 6}, r"stages\.student\.batch_size is 6, over"),
        _of("ss_mpe", {"stages__finetune__labelled": 3}, r"finetune\.labelled \+ unlabelled is 5,"),
        _of("transfer", {"stages__finetune__batch_size": 2}, r"finetune\.batch_size is 2, over 4"),
        _of("transfer", {"stages__finetune__mixing": "incoherent"}, "a multiple of 4 from 8"),
        _of("mixit", {"stages__supervised__batch_size": 6}, r"supervised\.batch_size is 6, over 4"),
        _of("jukebox", {"stages__encoder__batch_size": 2}, r"encoder\.batch_size is 2, over 4"),
    ],
)
def test_a_later_stage_whose_batch_the_devices_cannot_share_is_refused(
    smoke, tmp_path, recipe, fields, message
):
    with pytest.raises(ValueError, match=message) as caught:
        smoke_runs.stages(smoke.config(recipe, **fields), tmp_path)
    assert "\n" not in str(caught.value)


def test_the_paper_s_transfer_on_eight_devices_is_told_what_to_do(monkeypatch):
    from majl_jax.recipes import transfer

    _devices(monkeypatch, 8)
    config = smoke_runs.load_config("transfer", "paper")
    assert transfer._device_share(config, "pretrain") == 3
    with pytest.raises(
        ValueError, match=r"finetune\.batch_size is 24.* take 32, or hide all but 6"
    ):
        transfer._device_share(config, "finetune")


# ---- data sets -----------------------------------------------------------------------------------


def _written(folder, layout=made_music.LAYOUT, file_format="tfrecord"):
    tracks = records.cut(made_music.tones("a", layout=layout), layout)
    builder.write_dataset(folder, {"train": tracks}, layout=layout, file_format=file_format)
    return Source(folder, "train", 1.0)


def test_sets_have_to_fit_the_reader_and_each_other(tmp_path):
    usual = _written(tmp_path / "usual")
    inputs.check_sources([usual], reader="tf.data")
    other = _written(tmp_path / "other", file_format="array_record")
    inputs.check_sources([usual, other], reader="memory")
    with pytest.raises(ValueError, match=r"is in array_record format, .* --config\.data\.reader"):
        inputs.check_sources([usual, other], reader="tf.data")
    finer = dataclasses.replace(made_music.LAYOUT, hop_samples=160)
    other = _written(tmp_path / "finer", finer)
    with pytest.raises(ValueError, match=r"cannot be mixed with .*: hop_samples is 160 there"):
        inputs.check_sources([usual, other], reader="memory")
