"""Bytes that changed after they were written: found wherever a record is read, and said."""

import dataclasses
import re
import shlex
import shutil

import pytest
from made_records import LAYOUT

from majl_jax.datasets import builder, records
from majl_jax.datasets.input import memory, tf_data
from majl_jax.prepare import __main__ as prepare

BATCHES = {"batch_size": 6, "segment_samples": 16, "seed": 5}


def spoil(folder, how):
    """Zeroes a third of the first training shard, or flips a bit of it."""
    shard = sorted(folder.glob("*train*"))[0]
    content = bytearray(shard.read_bytes())
    third = len(content) // 3
    if how == "zeroed":
        content[third : 2 * third] = bytes(third)
    else:
        content[third] ^= 4
    shard.write_bytes(bytes(content))
    return shard


def batches_of(module):
    def read(folder):
        batches = module.open_batches([(folder, "train", 1.0)], **BATCHES)
        for _ in range(8):
            next(batches)

    return read


READ = {
    "tracks": lambda folder: list(records.read_tracks(folder, "train")),
    "tf.data": batches_of(tf_data),
    "memory": batches_of(memory),
}


@pytest.mark.parametrize("how", ["zeroed", "flipped"])
@pytest.mark.parametrize("read", READ)
def test_a_damaged_record_is_named_with_what_mends_it(read, how, prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    READ[read](folder)
    shard = spoil(folder, how)
    with pytest.raises(records.DamagedRecordError) as error:
        READ[read](folder)
    said = re.fullmatch(
        rf"{shard}: the record of (\S+) at sample (\d+) is damaged \(.+\)\."
        rf" Remove the folder {folder} and make it again with:\n  python -m majl_jax.prepare .*",
        str(error.value),
    )
    assert said is not None, error.value
    split = records.open_prepared(folder).split("train")
    places = zip(split.track, map(str, split.start_sample), split.shard, strict=True)
    assert (*said.groups(), 0) in list(places)


def test_so_is_one_of_array_record(tmp_path, cut_records):
    folder = tmp_path / "made"
    builder.write_dataset(folder, {"train": cut_records}, layout=LAYOUT, file_format="array_record")
    shard = sorted(folder.glob("*train*"))[0]
    content = bytearray(shard.read_bytes())
    content[120] ^= 4  # the rest of so small a shard is filled up
    shard.write_bytes(bytes(content))
    with pytest.raises(records.DamagedRecordError, match=rf"{shard}: the record of \S+ at sample"):
        list(records.read_tracks(folder, "train"))


def test_a_run_goes_on_up_to_the_damage_and_no_further(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "copy")
    whole = tf_data.open_batches([(folder, "train", 1.0)], **{**BATCHES, "batch_size": 1})
    index = records.open_prepared(folder).split("train")
    shard = spoil(folder, "flipped")
    damaged = tf_data.open_batches([(folder, "train", 1.0)], **{**BATCHES, "batch_size": 1})
    with pytest.raises(records.DamagedRecordError, match=str(shard)):
        for _ in range(len(index)):
            next(damaged)
    taken = damaged.step
    assert taken < len(index)
    with pytest.raises(records.DamagedRecordError):
        next(damaged)
    assert damaged.step == taken and whole.step == 0


@pytest.mark.parametrize(
    "words",
    [
        "--dataset=chorales --sample_rate_hz=22050 --hop_samples=256 --tracks=train=3,valid=0",
        "--dataset=audio_folder --source='some where' --channels=2 --drop_silence --tracks=4",
        "--dataset=musdb18 --source=m --stems=vocals,rest=bass+drums+other --record_seconds=6.5",
    ],
)
def test_the_command_that_mends_makes_the_same_set(words, prepared):
    parsed = prepare.parse_arguments(shlex.split(words))
    options = dataclasses.asdict(prepare._options(parsed, parsed.dataset[0]))
    opened = dataclasses.replace(
        records.open_prepared(prepared),
        directory=records.epath.Path(f"data/prepared/{parsed.dataset[0]}"),
        options=options,
    )
    command = records.how_to_mend(opened).splitlines()[-1]
    again = prepare.parse_arguments(shlex.split(command)[3:])
    assert dataclasses.asdict(prepare._options(again, again.dataset[0])) == options
    assert str(again.output) == "data/prepared"


def test_labels_of_a_teacher_are_made_again_by_the_run(prepared):
    labelled = dataclasses.replace(records.open_prepared(prepared), options={"teacher": "ab"})
    assert "the training command has its teacher label it again" in records.how_to_mend(labelled)


def test_the_index_has_the_checksum_of_the_content(prepared, tmp_path, cut_records):
    first = records.open_prepared(prepared).split("train").content
    other = [{**record, "stems": record["stems"] + 1} for record in cut_records]
    builder.write_dataset(tmp_path / "other", {"train": other}, layout=LAYOUT)
    builder.write_dataset(tmp_path / "same", {"train": cut_records}, layout=LAYOUT)
    assert isinstance(first, int)
    assert records.open_prepared(tmp_path / "same").split("train").content == first
    assert records.open_prepared(tmp_path / "other").split("train").content != first
