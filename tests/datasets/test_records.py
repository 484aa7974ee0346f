"""Records: cutting and joining, writing and reading back, and what is wrong with a folder."""

import dataclasses
import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from made_records import HOP, LAYOUT, made_track
from places import SUPPORT

from majl_jax.datasets import builder, records

KEYS = ("stems", "has_stems", "f0_hz", "has_pitch")


@pytest.mark.parametrize("samples", [4, 27, 39, 40, 41, 44, 80, 83, 120, 163])
def test_cut_and_join_are_inverse(samples):
    one = made_track("one", samples)
    pieces = list(records.cut(one, LAYOUT))
    assert all(piece["stems"].shape == (40, 2, 1) for piece in pieces)
    assert all(piece["start_sample"] % HOP == 0 for piece in pieces)
    assert len(pieces) == max(-(-samples // 40), 1)
    if samples >= 44:  # a longer track has no padding but that of a broken last hop
        assert all(piece["valid_samples"] > 40 - HOP for piece in pieces)
    joined = records.join(pieces, LAYOUT)
    for key in KEYS:
        np.testing.assert_array_equal(joined[key], one[key])
    assert joined["valid_samples"] == samples and joined["track"] == "one"


def test_padding_is_no_label():
    (piece,) = records.cut(made_track("short", 27), LAYOUT)
    assert piece["valid_samples"] == 27
    assert not piece["stems"][27:].any() and not piece["has_pitch"][6:].any()


def test_stems_of_unequal_shape_are_refused():
    one = made_track("one", 80)
    one["stems"] = one["stems"][:, :1]
    with pytest.raises(ValueError, match="stems of track one has shape"):
        list(records.cut(one, LAYOUT))


@pytest.mark.parametrize("file_format", records.FORMATS)
def test_what_is_written_is_read_back(file_format, tmp_path, tracks, cut_records):
    directory = tmp_path / "made"
    builder.write_dataset(
        directory,
        {"train": cut_records},
        layout=LAYOUT,
        options={"seed": 3},
        report={"skipped": {}},
        file_format=file_format,
    )
    opened = records.open_prepared(directory)
    assert opened.layout == LAYOUT and opened.options == {"seed": 3}
    assert len(opened.split("train").shards) > 1
    found = {one["track"]: one for one in records.read_tracks(directory, "train")}
    assert sorted(found) == ["b", "long/one", "short"]
    for one in tracks:
        for key in KEYS:
            np.testing.assert_array_equal(found[one["track"]][key], one[key])
    assert len(list(records.read_records(directory, "train"))) == len(cut_records)
    assert [path.name for path in tmp_path.iterdir()] == ["made"], "nothing is left beside it"


def of_voices(samples: int, voices: int) -> records.Record:
    """A track of two stems with so many pitches of the mixture, each telling its frame and
    voice.
    """
    one, frames = made_track("one", samples), samples // HOP
    one["f0_hz"] = (np.arange(frames)[:, None] + 1000 * np.arange(voices)).astype(np.float32)
    one["has_pitch"] = np.ones((frames, voices), bool)
    return one


def test_a_number_of_voices_of_their_own_is_written_and_read_back(tmp_path):
    import tensorflow_datasets as tfds

    layout, one = dataclasses.replace(LAYOUT, voices=5), of_voices(163, 5)
    pieces = list(records.cut(one, layout))
    assert all(piece["f0_hz"].shape == piece["has_pitch"].shape == (10, 5) for piece in pieces)
    builder.write_dataset(tmp_path / "made", {"train": pieces}, layout=layout)
    assert records.open_prepared(tmp_path / "made").layout == layout
    (found,) = records.read_tracks(tmp_path / "made", "train")
    for key in KEYS:
        np.testing.assert_array_equal(found[key], one[key])
    as_tfds = tfds.builder_from_directory(tmp_path / "made").info.features
    assert as_tfds is not None and as_tfds["f0_hz"].shape == (10, 5)


def test_labels_of_another_number_of_voices_are_refused():
    for voices, expected in ((0, "2"), (5, "5")):
        with pytest.raises(ValueError, match=rf"f0_hz of track one has .*\('any', {expected}\)"):
            list(records.cut(of_voices(80, 3), dataclasses.replace(LAYOUT, voices=voices)))
    with pytest.raises(ValueError, match="voices must be 0"):
        dataclasses.replace(LAYOUT, voices=-1)


def test_a_set_from_before_there_were_voices_is_opened(prepared, tmp_path):
    folder = copy(prepared, tmp_path)
    index = json.loads((folder / records.INDEX_FILE).read_text())
    assert index["layout"].pop("voices") == 0
    (folder / records.INDEX_FILE).write_text(json.dumps(index))
    assert records.open_prepared(folder).layout == LAYOUT
    assert next(records.read_tracks(folder, "train"))["f0_hz"].shape[1] == 2


def test_nothing_of_tensorflow_datasets_is_imported_after_opening(prepared):
    # Its import changes `import` for all threads for a while: not beside threads that write.
    script = """
import sys
from majl_jax.datasets import records
module = "tensorflow_datasets.proto.tf_example_generated_pb2"
assert module not in sys.modules
opened = records.open_prepared(sys.argv[1])
assert module in sys.modules
before = {name for name in sys.modules if name.startswith("tensorflow_datasets")}
records.read_record(opened, "train", 0)
after = {name for name in sys.modules if name.startswith("tensorflow_datasets")}
assert after == before, after - before
"""
    subprocess.run([sys.executable, "-c", script, str(prepared)], check=True)


def test_tfds_reads_it_as_well(prepared, cut_records):
    import tensorflow_datasets as tfds

    dataset = tfds.builder_from_directory(prepared).as_dataset(split="train")
    found = {
        (one["track"].decode(), int(one["start_sample"])): one for one in tfds.as_numpy(dataset)
    }
    assert len(found) == len(cut_records)
    for one in cut_records:
        stored = found[one["track"], one["start_sample"]]
        for key in KEYS:
            np.testing.assert_array_equal(stored[key], one[key])


def digests(directory) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def test_another_process_writes_the_same_bytes(tmp_path, cut_records):
    script = """
import pathlib, sys
sys.path.insert(0, str(pathlib.Path(sys.argv[1])))
from made_records import LAYOUT, made_track
from majl_jax.datasets import builder, records
cut = [r for n, s in (("long/one", 163), ("short", 27), ("b", 120))
       for r in records.cut(made_track(n, s), LAYOUT)]
builder.write_dataset(sys.argv[2], {"train": cut}, layout=LAYOUT, file_format="array_record")
"""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        subprocess.run([sys.executable, "-c", script, str(SUPPORT), str(folder)], check=True)
    assert digests(folders[0]) == digests(folders[1])


def test_a_broken_write_leaves_nothing_and_can_be_repeated(tmp_path, cut_records):
    directory = tmp_path / "made"

    def broken():
        yield cut_records[0]
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        builder.write_dataset(
            directory, {"train": broken()}, layout=LAYOUT, file_format="array_record"
        )
    assert not directory.exists()
    builder.write_dataset(
        directory, {"train": cut_records}, layout=LAYOUT, file_format="array_record"
    )
    assert records.is_prepared(directory)
    with pytest.raises(FileExistsError, match="a prepared data set already"):
        builder.write_dataset(directory, {"train": cut_records}, layout=LAYOUT)


def test_an_absent_data_set_names_the_folder_and_the_command(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        records.open_prepared(tmp_path / "chorales")
    assert str(tmp_path / "chorales") in str(error.value)
    assert f"majl_jax.prepare --dataset=chorales --output={tmp_path}" in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"Make it with:\s+make one"):
        records.open_prepared(tmp_path / "chorales", how="make one")


def copy(prepared, tmp_path):
    import shutil

    return shutil.copytree(prepared, tmp_path / "copy")


def test_a_missing_shard_is_named(prepared, tmp_path):
    folder = copy(prepared, tmp_path)
    shard = sorted(folder.glob("*train*"))[1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{shard.name} is missing[\s\S]*majl_jax.prepare"):
        records.open_prepared(folder)


def test_a_truncated_shard_is_named(prepared, tmp_path):
    folder = copy(prepared, tmp_path)
    shard = sorted(folder.glob("*train*"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(FileNotFoundError, match=rf"{shard.name} has \d+ bytes, expected"):
        records.open_prepared(folder)


def test_an_unknown_split_lists_the_known(prepared):
    with pytest.raises(KeyError, match=r"no split 'test'; it has \['train', 'valid'\]"):
        next(records.read_tracks(prepared, "test"))


def test_a_record_is_a_whole_number_of_hops():
    with pytest.raises(ValueError, match="multiple of hop_samples"):
        records.Layout(("a",), 1, 16000, 320, 1000)
