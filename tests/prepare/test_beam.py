"""Preparation by an Apache Beam pipeline: the same data set as by this machine's processes."""

import functools
import json
import pickle
import sys

import numpy as np
import object_store
import pytest
import soundfile

from majl_jax.datasets import records, track
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import beam, loading, selection

RATE_HZ = 1000
DIRECT = ["--beam", "--beam_options=--runner=DirectRunner"]


@pytest.fixture
def source(tmp_path):
    """Songs of two splits, one with a silent record, two files that are no audio."""
    rng = np.random.default_rng(0)
    for number, seconds in enumerate((5.0, 6.3, 1.1, 4.0)):
        audio = rng.uniform(-0.3, 0.3, (int(RATE_HZ * seconds), 1))
        if number == 1:
            audio[1500:3200] = 0.0  # more than half of the second record
        folder = tmp_path / "source" / ("valid" if number == 3 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{number}.wav", audio, RATE_HZ)
    (tmp_path / "source/train/empty.wav").write_bytes(b"")
    (tmp_path / "source/test").mkdir()
    (tmp_path / "source/test/text.wav").write_text("no audio")
    return tmp_path / "source"


def run(source, output, *arguments: str) -> int:
    flags = [f"--sample_rate_hz={RATE_HZ}", "--hop_samples=20", "--record_seconds=2"]
    flags += ["--drop_silence", "--max_bad_fraction=0.5", "--processes=1", f"--output={output}"]
    return prepare.main(["--dataset=audio_folder", f"--source={source}", *flags, *arguments])


def in_order(folder) -> dict[str, list[records.Record]]:
    """The records of each split by their numbers."""
    prepared = records.open_prepared(folder)
    return {
        name: [records.read_record(prepared, name, number) for number in range(len(split))]
        for name, split in prepared.splits.items()
    }


def assert_same(one, other) -> None:
    assert one.keys() == other.keys()
    for split, expected in one.items():
        assert len(other[split]) == len(expected)
        for a, b in zip(expected, other[split], strict=True):
            assert a.keys() == b.keys()
            for key in a:
                np.testing.assert_array_equal(b[key], a[key], err_msg=key)


def test_without_apache_beam_it_says_how_to_install_it(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert run(source, tmp_path / "out", "--beam") == 1
    error = capsys.readouterr().err
    assert 'pip install -e ".[beam]"' in error and "environment of its own" in error
    assert not (tmp_path / "out").exists()


def test_options_of_beam_need_beam(capsys):
    with pytest.raises(SystemExit):
        prepare.main(["--dataset=chorales", "--beam_options=--runner=DirectRunner"])
    assert "--beam_options are for --beam only" in capsys.readouterr().err


def test_what_a_worker_does_gives_the_records_of_the_usual_way(source, tmp_path):
    assert run(source, tmp_path / "out", "--file_format=array_record") == 0
    folder = tmp_path / "out" / "audio_folder"
    report = json.loads((folder / records.REPORT_FILE).read_text())
    made = {"train": [], "valid": []}
    outcomes = []
    options = selection.Options(
        "audio_folder", str(source), RATE_HZ, 20, 1, 2.0, None, 0, "array_record", 1, True
    )
    tracks, _ = selection.list_tracks(options)
    unpacked = [one for chunk in beam.pack(tracks) for one in beam.unpack(chunk)]
    assert len(unpacked) == len(tracks) == 6
    for one in tracks:
        for piece in loading.load_and_cut(one, options.layout(), drop_silence=True):
            if isinstance(piece, loading.Outcome):
                outcomes.append(piece)
            else:
                made[one.split].append(piece)
    assert [one.track for one in outcomes] == [one.id for one in tracks]
    assert {one.track: one.skipped for one in outcomes if one.skipped} == report["skipped"]
    silent = {one.track: one.silent_records for one in outcomes if one.silent_records}
    assert silent == report["silent_records"] == {"train/1.wav": 1}
    assert_same({split: list(records.read_records(folder, split)) for split in made}, made)


def test_tracks_survive_their_packing(monkeypatch):
    monkeypatch.setattr(beam, "TRACKS_PER_CHUNK", 3)
    tracks = [
        track.Track(id=f"{n}", split="train", load=functools.partial(int, str(n))) for n in range(7)
    ]
    chunks = beam.pack(tracks)
    assert len(chunks) == 3
    unpacked = [pickle.loads(one) for chunk in chunks for one in beam.unpack(chunk)]
    assert [one.id for one in unpacked] == [one.id for one in tracks]
    assert [one.load() for one in unpacked] == list(range(7))


def test_a_track_without_an_outcome_is_noticed(tmp_path):
    path = tmp_path / "outcomes.json"
    path.write_text(json.dumps([{"track": "a", "skipped": "", "silent_records": 2}]))
    tracks = [track.Track(id=name, split="train", load=int) for name in ("a", "b")]
    assert beam.read_outcomes([path], tracks[:1]) == {"a": loading.Outcome("a", "", 2)}
    with pytest.raises(RuntimeError, match="no outcome for 1 tracks, b among them"):
        beam.read_outcomes([path], tracks)


def test_by_beam_the_data_set_is_the_same(source, tmp_path, capsys):
    pytest.importorskip("apache_beam")
    assert run(source, tmp_path / "usual") == 0
    capsys.readouterr()
    assert run(source, tmp_path / "beam", *DIRECT) == 0
    text = capsys.readouterr().out
    assert "3 train, 1 valid, 0 test; 2 skipped" in text and "1 records left out" in text
    usual, by_beam = tmp_path / "usual/audio_folder", tmp_path / "beam/audio_folder"
    assert {path.name for path in by_beam.parent.iterdir()} == {"audio_folder"}
    assert_same(in_order(usual), in_order(by_beam))
    one, other = (records.open_prepared(folder) for folder in (usual, by_beam))
    assert (one.layout, one.options) == (other.layout, other.options)
    assert one.splits.keys() == other.splits.keys() == {"train", "valid"}
    assert [path.name for path in by_beam.glob("*test*")] == [], "nothing of the empty split"
    one, other = (
        json.loads((folder / records.REPORT_FILE).read_text()) for folder in (usual, by_beam)
    )
    assert one == other
    assert run(source, tmp_path / "beam") == 0
    assert "already prepared" in capsys.readouterr().out


def test_too_many_bad_tracks_keep_it_from_appearing(source, tmp_path, monkeypatch, capsys):
    pytest.importorskip("apache_beam")
    output = tmp_path / "out"
    assert run(source, output, *DIRECT, "--max_bad_fraction=0.1") == 1
    assert "2 of 6 tracks are bad" in capsys.readouterr().err
    assert not (output / "audio_folder").exists()
    monkeypatch.setattr(loading, "load_one", None)  # what was written is used
    assert run(source, output, *DIRECT) == 0
    assert {path.name for path in output.iterdir()} == {"audio_folder"}
    report = json.loads((output / "audio_folder" / records.REPORT_FILE).read_text())
    assert report["silent_records"] == {"train/1.wav": 1} and len(report["skipped"]) == 2


def test_nothing_but_bad_tracks(source, tmp_path, capsys):
    pytest.importorskip("apache_beam")
    for path in source.rglob("*.wav"):
        path.write_bytes(b"")
    assert run(source, tmp_path / "out", *DIRECT, "--max_bad_fraction=1") == 1
    assert "No track could be used" in capsys.readouterr().err
    assert not (tmp_path / "out" / "audio_folder").exists()


def test_by_beam_onto_an_object_store(source, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    assert run(source, tmp_path / "usual") == 0
    bucket = object_store.bucket(monkeypatch)
    assert run(source, bucket, *DIRECT, f"--work={tmp_path / 'work'}") == 0
    assert [path.name for path in bucket.iterdir()] == ["audio_folder"]
    assert_same(in_order(tmp_path / "usual/audio_folder"), in_order(bucket / "audio_folder"))
