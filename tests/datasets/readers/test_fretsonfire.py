"""Frets on Fire: made-up songs in the game's folders."""

import pathlib
import shutil

import numpy as np
import pytest
import soundfile

from majl_jax.datasets import records, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, fretsonfire
from majl_jax.prepare import __main__ as prepare

GRID = Grid(8000, 100)


@pytest.fixture
def songs(tmp_path):
    tone = np.sin(2 * np.pi * 200 * np.arange(44_100) / 44_100)[:, None] * [1.0, 0.9]
    songs = {"sectoid/Feelings": 0.2, "sectoid/Metal madness": 0.8, "muldjord/mutilated_mime": 0.2}
    for name, gain in songs.items():
        folder = tmp_path / fretsonfire.SONGS / name
        folder.mkdir(parents=True)
        for file in fretsonfire.FILES.values():
            soundfile.write(folder / file, gain * tone, 44_100, format="OGG", subtype="VORBIS")
    return tmp_path


def test_songs_are_found_from_either_folder_and_divided(songs):
    for source in (songs, songs / fretsonfire.SONGS):
        found = fretsonfire.tracks(str(source), grid=GRID)
        assert {one.id: one.split for one in found} == {
            "Feelings": "train",
            "Metal_madness": "test",
            "mutilated_mime": "valid",
        }


@pytest.mark.parametrize("channels", [1, 2])
def test_stems_add_up_to_no_more_than_full_scale(songs, channels):
    for one in fretsonfire.tracks(str(songs), grid=Grid(8000, 100, channels)):
        recording = one.load()
        assert recording.audio.shape == (8000, 2, channels) and recording.has_stems.all()
        assert recording.audio[:, 0].std() > 0.01 < recording.audio[:, 1].std()
        peak = np.abs(recording.audio.sum(1)).max()
        assert peak == pytest.approx(0.98, abs=1e-4) if one.split == "test" else peak < 0.5


def test_it_is_prepared_like_any_other_set(songs, tmp_path):
    call = [
        "--dataset=fretsonfire",
        f"--source={songs}",
        f"--output={tmp_path / 'out'}",
        "--channels=2",
    ]
    assert prepare.main([*call, "--sample_rate_hz=8000", "--hop_samples=100", "--processes=1"]) == 0
    (track,) = records.read_tracks(tmp_path / "out/fretsonfire", "valid")
    assert track["stems"].shape == (8000, 2, 2)
    assert READERS["fretsonfire"].channels == (1, 2)


def test_two_songs_of_one_name_are_refused_in_one_line(songs, tmp_path, capsys):
    root = songs / fretsonfire.SONGS
    shutil.copytree(root / "sectoid/Feelings", root / "mine/Feelings")
    call = ["--dataset=fretsonfire", f"--source={songs}", f"--output={tmp_path / 'out'}"]
    assert prepare.main(call) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "fretsonfire: two tracks are called 'Feelings'" in line
    assert "mine/Feelings" in line and "sectoid/Feelings" in line


def test_the_whole_machine_is_not_searched(monkeypatch):
    monkeypatch.setattr(fretsonfire, "SONGS", pathlib.PurePosixPath("nowhere/at/all"))
    monkeypatch.setattr(source_files, "find_folders", lambda root: pytest.fail("searched"))
    with pytest.raises(FileNotFoundError, match="apt install fretsonfire"):
        fretsonfire.tracks("/", grid=GRID)


def test_a_wrong_folder_is_told_how_to_install(tmp_path):
    with pytest.raises(ValueError, match=r"--source is missing.*apt install fretsonfire-songs"):
        fretsonfire.tracks(None, grid=GRID)
    with pytest.raises(FileNotFoundError, match="apt install fretsonfire-songs"):
        fretsonfire.tracks(str(tmp_path), grid=GRID)
