"""Preparation by an Apache Beam pipeline: the same data set as by this machine's processes.

Without Apache Beam a stand-in for its runner applies the function that its workers would.
"""

import pickle
import shutil
import sys
import zlib

import numpy as np
import object_store
import pytest
import soundfile

from majl_jax.datasets import track
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import beam, loading

RATE_HZ = 1000


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Songs of two splits, one with a silent record, two files that are no audio."""
    tmp_path = tmp_path_factory.mktemp("songs")
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


@pytest.fixture(scope="module")
def usual(source, tmp_path_factory):
    """The data set as this machine's processes make it."""
    output = tmp_path_factory.mktemp("usual")
    assert run(source, output) == 0
    return output / "audio_folder"


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


class Runner:
    """Applies a function to each piece but those it loses; what it was given is kept."""

    def __init__(self, *, loses=(), twice=False):
        self.loses, self.twice, self.given = loses, twice, []

    def __call__(self, function, pieces, options):
        del options
        self.given.append(len(pieces))
        for number, piece in enumerate(pieces):
            if number not in self.loses:
                for _ in range(1 + self.twice):
                    function(piece)


@pytest.fixture
def runner(monkeypatch):
    """Sets the stand-in for Beam that the next run has."""

    def use(**options) -> Runner:
        made = Runner(**options)
        monkeypatch.setattr(beam, "_apply", made)
        monkeypatch.setattr(beam, "pipeline_options", str)
        monkeypatch.setattr(beam, "PIECE_TRACKS", 2)
        return made

    return use


def files(folder) -> dict[str, bytes]:
    """What a data set is made of, but for the paths in it."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != "dataset_info.json"  # names the folder that it was written in
    }


def assert_same(usual, by_beam) -> None:
    """The same files, byte for byte, and nothing beside them."""
    assert files(usual) == files(by_beam)
    assert {path.name for path in by_beam.parent.iterdir()} == {usual.name}


def test_by_beam_the_data_set_is_the_same_byte_for_byte(source, usual, tmp_path, runner, capsys):
    used = runner(twice=True)  # as a runner may that believes a worker dead
    assert run(source, tmp_path / "beam", "--beam") == 0
    text = capsys.readouterr().out
    assert "6 of 6 tracks are left to be loaded, by Beam" in text and used.given == [3]
    assert "3 train, 1 valid, 0 test; 2 skipped" in text and "1 records left out" in text
    assert_same(usual, tmp_path / "beam/audio_folder")
    assert run(source, tmp_path / "beam") == 0
    assert "already prepared" in capsys.readouterr().out


def test_what_a_runner_loses_is_said_and_loaded_by_the_same_command(
    source, usual, tmp_path, runner, capsys
):
    runner(loses={1})
    assert run(source, tmp_path / "beam", "--beam") == 1
    error = capsys.readouterr().err
    assert "left 2 of 6 tracks unloaded" in error and "goes on from here" in error
    assert not (tmp_path / "beam/audio_folder").exists()
    again = runner()
    assert run(source, tmp_path / "beam", "--beam") == 0
    assert "3 of 6 tracks are left" in capsys.readouterr().out  # two lost, one that is no audio
    assert again.given == [2]
    assert_same(usual, tmp_path / "beam/audio_folder")


def test_files_that_changed_since_are_loaded_again(source, tmp_path, runner):
    changed = shutil.copytree(source, tmp_path / "source")
    runner(loses={2})
    assert run(changed, tmp_path / "beam", "--beam") == 1
    audio = np.random.default_rng(1).uniform(-0.3, 0.3, (4321, 1))
    soundfile.write(changed / "train/0.wav", audio, RATE_HZ)
    runner()
    assert run(changed, tmp_path / "beam", "--beam") == 0
    assert run(changed, tmp_path / "usual") == 0
    assert_same(tmp_path / "usual/audio_folder", tmp_path / "beam/audio_folder")


def test_too_many_bad_tracks_keep_it_from_appearing(source, tmp_path, runner, monkeypatch, capsys):
    runner()
    assert run(source, tmp_path / "out", "--beam", "--max_bad_fraction=0.1") == 1
    assert "2 of 6 tracks are bad" in capsys.readouterr().err
    assert not (tmp_path / "out/audio_folder").exists()
    loads = []
    load = loading.load_one
    monkeypatch.setattr(
        loading, "load_one", lambda one, *rest: loads.append(one.id) or load(one, *rest)
    )
    assert run(source, tmp_path / "out", "--beam") == 0
    assert sorted(loads) == ["test/text.wav", "train/empty.wav"], "good tracks were kept"


def test_nothing_but_bad_tracks(source, tmp_path, runner, capsys):
    bad = tmp_path / "source/train"
    bad.mkdir(parents=True)
    for name in "ab":
        (bad / f"{name}.wav").write_bytes(b"")
    runner()
    assert run(bad.parent, tmp_path / "out", "--beam", "--max_bad_fraction=1") == 1
    assert "No track could be used" in capsys.readouterr().err
    assert not (tmp_path / "out/audio_folder").exists()


def test_by_beam_onto_an_object_store(source, usual, tmp_path, runner, monkeypatch):
    bucket = object_store.bucket(monkeypatch)
    work = tmp_path / "work"
    runner(loses={0})
    assert run(source, bucket, "--beam", f"--work={work}") == 1
    (left,) = bucket.iterdir()
    assert not [*work.rglob("*.npz")]
    assert left.name.startswith(".audio_folder.work-"), (
        "loaded tracks are where all workers see them"
    )
    used = runner()
    assert run(source, bucket, "--beam", f"--work={work}") == 0
    assert used.given == [2]
    assert_same(usual, bucket / "audio_folder")


def test_what_was_skipped_and_then_lost_is_not_skipped(source, tmp_path, runner, capsys):
    runner(loses={0})
    assert run(source, tmp_path / "out", "--beam") == 1
    runner(loses={1})  # the second piece of what is left: a file that is no audio among it
    assert run(source, tmp_path / "out", "--beam") == 1
    assert "tracks unloaded" in capsys.readouterr().err
    assert not (tmp_path / "out/audio_folder").exists()


def test_workers_that_see_other_files_are_said(source, tmp_path, runner, monkeypatch, capsys):
    runner()
    monkeypatch.setattr(beam, "content_of", lambda tracks, seen=[0]: seen.append(0) or len(seen))
    assert run(source, tmp_path / "out", "--beam") == 1
    error = capsys.readouterr().err
    assert "left 6 of 6 tracks unloaded" in error and "other files of it under --source" in error


def test_a_folder_that_workers_do_not_see_is_said(source, tmp_path, runner, monkeypatch, capsys):
    runner()
    load, elsewhere = beam.load_piece, tmp_path / "elsewhere"
    monkeypatch.setattr(
        beam,
        "load_piece",
        lambda piece, layout, folder: load(piece, layout=layout, folder=f"{elsewhere}"),
    )
    assert run(source, tmp_path / "out", "--beam") == 1
    error = capsys.readouterr().err
    assert f"the Beam runner gave up: {elsewhere}, the folder of loaded tracks, is not" in error
    assert "the same command goes on from here" in error and not elsewhere.exists()


def test_a_run_that_is_ended_without_beam_leaves_nothing_behind(
    source, usual, tmp_path, runner, monkeypatch
):
    bucket = object_store.bucket(monkeypatch)
    runner(loses={0})
    assert run(source, bucket, "--beam", f"--work={tmp_path / 'work'}") == 1
    assert run(source, bucket, f"--work={tmp_path / 'work'}") == 0
    assert_same(usual, bucket / "audio_folder")


def test_a_long_list_is_few_pieces(source, monkeypatch):
    monkeypatch.setattr(beam, "MOST_PIECES", 3)
    tracks = [track.Track(id=f"{n}", split="train", load=int) for n in range(40)]
    pieces = beam.pack(tracks)
    assert len(pieces) == 3 and len(beam.pack(tracks[:9])) == 3
    unpacked = [one.id for piece in pieces for one in pickle.loads(zlib.decompress(piece))]
    assert unpacked == [one.id for one in tracks]


DASK = "--runner=apache_beam.runners.dask.dask_runner.DaskRunner --dask_partition_size=1"
TWO_PROCESSES = "--direct_running_mode=multi_processing --direct_num_workers=2"


@pytest.mark.parametrize(
    ("needs", "options"),
    [
        ("apache_beam", "--runner=DirectRunner"),
        ("apache_beam", f"--runner=DirectRunner {TWO_PROCESSES}"),
        ("dask.distributed", DASK),
    ],
    ids=["direct", "two processes", "dask"],
)
def test_a_runner_of_beam(source, usual, tmp_path, needs, options):
    pytest.importorskip("apache_beam")
    pytest.importorskip(needs)
    assert run(source, tmp_path / "beam", "--beam", f"--beam_options={options}") == 0
    assert_same(usual, tmp_path / "beam/audio_folder")
