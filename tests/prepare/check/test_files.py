"""The doctor on files of prepared sets: what is missing, cut off or does not agree; and its
command.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
import soundfile
from etils import epath
from made_songs import SPLITS, cut, look, music, names, songs, write

from majl_jax.datasets import records
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import check, selection


def index_of(folder: pathlib.Path):
    return json.loads((folder / records.INDEX_FILE).read_text())


def shard(folder: pathlib.Path, split: str = "train") -> pathlib.Path:
    return sorted(folder.glob(f"*{split}*"))[0]


def test_an_index_that_cannot_be_read(copied):
    (copied / records.INDEX_FILE).write_text("{")
    report = look(copied)
    assert names(report).keys() == {"no index"} and report.failed
    (copied / records.INDEX_FILE).unlink()
    assert names(look(copied)).keys() == {"no index"}
    assert check.find_prepared(epath.Path(copied.parent)) == [epath.Path(copied)]


def test_a_missing_shard(copied):
    missing = shard(copied)
    missing.unlink()
    found = names(look(copied))
    assert {"missing shard"} <= found.keys() <= {"missing shard", "gap", "tracks missing"}
    assert found["missing shard"].where == (f"{missing.name} (missing)",)


def test_a_truncated_shard(copied):
    path = shard(copied)
    path.write_bytes(path.read_bytes()[:-100])
    found = names(look(copied))
    assert found.keys() >= {"truncated shard", "damaged record"}
    assert path.name in found["truncated shard"].where[0]
    assert "the file ends before it does" in found["damaged record"].where[0]


def test_a_flipped_bit(copied):
    path = shard(copied)
    content = bytearray(path.read_bytes())
    content[index_of(copied)["splits"]["train"]["offset"][0] + 5000] ^= 4
    path.write_bytes(bytes(content))
    found = names(look(copied))
    assert found.keys() >= {"damaged record"} and "truncated shard" not in found
    assert "its checksum is wrong" in found["damaged record"].where[0]


@pytest.mark.parametrize("edit", ["offset", "length", "track", "start_sample", "shard", "short"])
def test_an_index_that_disagrees_with_the_shards(edit, copied):
    index = index_of(copied)
    columns = index["splits"]["train"]
    if edit == "short":
        columns["length"].pop()
    elif edit == "track":
        columns["track"][0] = "another"
    else:
        columns[edit][0] += 99
    (copied / records.INDEX_FILE).write_text(json.dumps(index))
    report = look(copied)
    assert report.failed and "index" in {one.name for one in report.findings()}


def test_records_of_another_layout(copied):
    index = index_of(copied)
    index["layout"]["channels"] = 2
    (copied / records.INDEX_FILE).write_text(json.dumps(index))
    found = [one for one in look(copied).findings() if one.name == "damaged record"]
    assert {one.split for one in found} == SPLITS.keys()
    assert "is no record of this layout" in found[0].where[0]


def test_a_damaged_shard_of_the_other_format(tmp_path):
    folder = write(tmp_path / "made", cut(songs()), file_format="array_record")
    path = shard(folder)
    content = bytearray(path.read_bytes())
    content[70_000:90_000] = bytes(20_000)
    path.write_bytes(bytes(content))
    report = look(folder)
    assert report.failed and "damaged record" in {one.name for one in report.findings()}


def test_an_empty_split_and_a_shard_nobody_knows(copied):
    index = index_of(copied)
    valid = index["splits"]["valid"]
    empty = {key: [] if isinstance(value, list) else value for key, value in valid.items()}
    index["splits"]["valid"] = empty
    (copied / records.INDEX_FILE).write_text(json.dumps(index))
    found = names(look(copied))
    assert found.keys() == {"empty split", "unknown shard", "tracks missing"}
    assert found["empty split"].split == found["tracks missing"].split == "valid"
    assert found["tracks missing"].what == "0 of 2 tracks are there"


@pytest.mark.parametrize(("count", "name"), [(1, "skipped tracks"), (3, "many skipped tracks")])
def test_tracks_that_were_skipped(count, name, copied):
    skipped = {f"bad_{number}": "zero length" for number in range(count)}
    (copied / records.REPORT_FILE).write_text(json.dumps({"tracks": SPLITS, "skipped": skipped}))
    found = names(look(copied))
    assert found.keys() == {name} and found[name].where[0] == "bad_0 (zero length)"


# The command.


def options(name: str, source: str | None = None) -> selection.Options:
    return selection.Options(
        dataset=name,
        source=source,
        sample_rate_hz=16000,
        hop_samples=320,
        channels=1,
        record_seconds=2.0,
        tracks=None,
        seed=0,
        file_format="tfrecord",
        reader_version=1,
    )


def test_the_command_looks_at_all_that_is_prepared(sound, tmp_path, capsys):
    shutil.copytree(sound, tmp_path / "a")
    shutil.copytree(sound, tmp_path / "group" / "b")
    assert prepare.main(["--check", f"--output={tmp_path}", "--processes=1"]) == 0
    text = capsys.readouterr().out
    assert f"a: {tmp_path}/a" in text and f"b: {tmp_path}/group/b" in text and "2 data sets" in text
    shard(tmp_path / "a").unlink()
    call = ["--check", f"--output={tmp_path}", f"--report={tmp_path / 'report.json'}"]
    assert prepare.main([*call, "--dataset="]) == 1
    assert "ERROR    missing shard, train" in capsys.readouterr().out
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["failed"] and told["sets"][0]["findings"][0]["name"] == "missing shard"
    with pytest.raises(FileNotFoundError, match="no prepared data set in"):
        check.command(tmp_path / "group" / "nothing", [], processes=1)


def test_the_command_looks_at_a_source_that_is_not_prepared(tmp_path, capsys):
    for singer in ("amy", "jmzen"):
        for sub in ("Wavfile", "PitchLabel"):
            (tmp_path / "source" / sub).mkdir(parents=True, exist_ok=True)
        audio = np.stack([music(seed, 2.0)[0] for seed in map(len, (singer, singer * 2))], axis=1)
        soundfile.write(tmp_path / f"source/Wavfile/{singer}_1_01.wav", audio, 16000)
        (tmp_path / f"source/PitchLabel/{singer}_1_01.pv").write_text("57.5\n" * 49)
    arguments = (tmp_path, [options("mir1k", str(tmp_path / "source"))])
    check.command(*arguments, processes=1)
    text = capsys.readouterr().out
    assert "mir1k: " in text and "(source, not prepared)" in text
    with pytest.raises(FileNotFoundError, match=r"--dataset=mir1k --source=FOLDER --output"):
        check.command(tmp_path, [options("mir1k")], processes=1)


def test_a_prepared_set_goes_before_its_source(sound, tmp_path, capsys):
    shutil.copytree(sound, tmp_path / "mir1k")
    assert check.command(tmp_path, [options("mir1k", "/nowhere")], processes=1) == 0
    assert f"mir1k: {tmp_path}/mir1k\n" in capsys.readouterr().out
