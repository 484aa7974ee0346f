"""A data set prepared onto an object store, where folders cannot be renamed, and read from
there.
"""

import numpy as np
import object_store
import pytest
import soundfile
from etils import epath

from majl_jax.datasets import records
from majl_jax.datasets.input import memory, tf_data
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import loading

SONGS = 3


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "source").mkdir()
    for number in range(SONGS):
        audio = rng.uniform(-0.3, 0.3, (4500, 1))
        soundfile.write(tmp_path / f"source/{number}.wav", audio, 1000)
    return tmp_path / "source"


@pytest.fixture
def bucket(monkeypatch):
    return object_store.bucket(monkeypatch)


def run(source, output, *arguments: str) -> int:
    flags = ["--sample_rate_hz=1000", "--hop_samples=20", "--record_seconds=2", "--processes=1"]
    flags += ["--dataset=audio_folder", f"--source={source}", f"--output={output}"]
    return prepare.main([*flags, *arguments])


def test_it_is_the_same_there_and_can_be_read(source, bucket, tmp_path, capsys):
    assert run(source, tmp_path / "here") == 0
    capsys.readouterr()
    work = tmp_path / "work"
    assert run(source, bucket, f"--work={work}") == 0
    text = capsys.readouterr().out
    assert f"are free in {work}" in text and f"to {bucket}" in text
    assert not list(work.iterdir())
    here, there = tmp_path / "here" / "audio_folder", bucket / "audio_folder"
    files = {path.name: path.read_bytes() for path in there.iterdir()}
    assert files == {path.name: path.read_bytes() for path in here.iterdir()}
    assert run(source, bucket) == 0
    assert f"already prepared in {there}" in capsys.readouterr().out
    for one, other in zip(
        records.read_tracks(here, "train"), records.read_tracks(there, "train"), strict=True
    ):
        np.testing.assert_array_equal(one["stems"], other["stems"])
    for reader in (memory, tf_data):
        one, other = (
            next(reader.open_batches([(folder, "train", 1.0)], **batches))
            for folder in (here, there)
            for batches in [{"batch_size": 2, "segment_samples": 400, "seed": 1}]
        )
        for key, array in one.items():
            np.testing.assert_array_equal(other[key], array, err_msg=key)


def test_a_missing_or_cut_shard_is_noticed(source, bucket, tmp_path):
    assert run(source, bucket, f"--work={tmp_path}") == 0
    shard = next((bucket / "audio_folder").glob("records-train*"))
    content = shard.read_bytes()
    shard.unlink()  # ram:// would append
    shard.write_bytes(content[:-1])
    with pytest.raises(FileNotFoundError, match=rf"has {len(content) - 1} bytes, expected"):
        records.open_prepared(bucket / "audio_folder")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"Shard ram://.* is missing"):
        records.open_prepared(bucket / "audio_folder")


def test_an_upload_that_broke_off_is_gone_on_with(source, bucket, tmp_path, monkeypatch, capsys):
    copied = []

    def copy(self, path, dst, overwrite):
        if len(copied) == 5:
            raise ConnectionError("the network is gone")
        copied.append(dst)
        original(self, path, dst, overwrite)

    original, directory = epath.backend._TfBackend.copy, bucket / "audio_folder"
    with monkeypatch.context() as broken:
        broken.setattr(epath.backend._TfBackend, "copy", copy)
        assert run(source, bucket, f"--work={tmp_path / 'work'}") == 1
    assert "the network is gone" in capsys.readouterr().err
    assert directory.exists() and not records.is_prepared(directory)
    with pytest.raises(FileNotFoundError, match=r"has no index\.json"):
        records.open_prepared(directory)
    monkeypatch.setattr(loading, "load_all", None)
    assert run(source, bucket, f"--work={tmp_path / 'work'}") == 0
    assert len(list(records.read_tracks(directory, "train"))) == SONGS
    assert not (directory / "unfinished").exists() and not list((tmp_path / "work").iterdir())


def test_what_a_broken_upload_of_other_options_left_makes_way(source, bucket, tmp_path, capsys):
    directory = bucket / "audio_folder"
    directory.mkdir(parents=True)
    for name in ("unfinished", "records-train.tfrecord-00019-of-00020"):
        (directory / name).write_text("")
    assert run(source, bucket, f"--work={tmp_path}") == 0
    assert not list(directory.glob("*-of-00020"))
    (directory / records.INDEX_FILE).unlink()
    capsys.readouterr()
    assert run(source, bucket, f"--work={tmp_path}") == 1
    assert "is a folder already; remove it" in capsys.readouterr().err


def test_array_record_is_for_local_disks(source, bucket, capsys):
    assert run(source, bucket, "--file_format=array_record") == 1
    assert "array_record is read from local disks only" in capsys.readouterr().err
    with pytest.raises(ValueError, match="array_record is read from local disks only"):
        records.array_record_reader(str(bucket / "shard"))


def test_a_store_that_cannot_be_reached(source, bucket, monkeypatch, capsys):
    def exists(*_):
        raise Exception("no credentials")

    monkeypatch.setattr(epath.backend._TfBackend, "exists", exists)
    assert run(source, bucket) == 1
    assert "cannot be reached: no credentials" in capsys.readouterr().err
