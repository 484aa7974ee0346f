"""Music packages of Debian: installed and unpacked, in folders and archives, and by the list."""

import collections
import json
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
from made_copies.debian_music import write_copy, write_package

from majl_jax.datasets import splits, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import debian_music
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

GRID = Grid(16000, 320)
INSTALLED = pathlib.Path("/")


def used(root) -> list[track.Track]:
    return [one for one in debian_music.tracks(str(root), grid=GRID) if not one.left_out]


def test_files_of_folders_and_archives_are_the_same_music(tmp_path):
    write_copy(tmp_path)
    found = used(tmp_path)
    assert [(one.id, one.split, one.group) for one in found] == [
        ("colobot-common-sounds/Proton.ogg", "train", "Emxx52"),
        ("nexuiz-music/ninesix.ogg", "train", "blkrbt"),
        ("nexuiz-music/stairs.ogg", "train", "blkrbt"),
    ]
    loaded = [pickle.loads(pickle.dumps(one)).load() for one in found]
    for one in loaded:
        track.check(one)
        assert not one.has_stems.any() and not one.has_pitch.any()
        assert one.audio.shape[1:] == (1, 1) and len(one.audio) == 16000
        np.testing.assert_array_equal(one.audio, loaded[0].audio)


@pytest.mark.parametrize("folders", [("", ""), ("all", "all"), ("colobot", "nexuiz")])
def test_packages_are_found_installed_unpacked_together_or_apart(tmp_path, folders):
    write_package(tmp_path / folders[0], "colobot-common-sounds", "Proton.ogg")
    write_package(tmp_path / folders[1], "nexuiz-music", "stairs.ogg")
    assert [one.id.partition("/")[2] for one in used(tmp_path)] == ["Proton.ogg", "stairs.ogg"]


def test_a_folder_that_is_not_to_be_entered_is_passed_over(tmp_path, monkeypatch):
    """As /lost+found, for all but root."""
    write_package(tmp_path / "unpacked", "colobot-common-sounds", "Proton.ogg")
    (tmp_path / "locked").mkdir()
    is_dir = pathlib.Path.is_dir

    def refused(path):
        if "locked" in path.parts and path.name != "locked":
            raise PermissionError(path)
        return is_dir(path)

    monkeypatch.setattr(pathlib.Path, "is_dir", refused)
    assert [one.id.partition("/")[2] for one in used(tmp_path)] == ["Proton.ogg"]


def test_packages_that_are_not_there_are_named_with_what_installs_them(tmp_path):
    write_copy(tmp_path)
    left_out = {one.id: one.left_out for one in debian_music.tracks(str(tmp_path), grid=GRID)}
    assert left_out["asc-music"] == ("not there: apt-get install --no-install-recommends asc-music")
    assert sum(reason.startswith("not there") for reason in left_out.values()) == 8
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError,
        match=r"\(apt-get install --no-install-recommends asc-music colobot.* wesnoth-1\.16",
    ):
        debian_music.tracks(str(tmp_path / "empty"), grid=GRID)


def test_files_that_are_short_or_not_listed_are_left_out(tmp_path):
    write_package(tmp_path, "wesnoth-1.16-music", "wanderer.ogg", "silence.ogg", "new song.ogg")
    write_package(tmp_path, "singularity-music", "Through Space.ogg", "lose/Chimes They Fade.ogg")
    found = {one.id: one for one in debian_music.tracks(str(tmp_path), grid=GRID)}
    left_out = {name: one.left_out for name, one in found.items() if "/" in name and one.left_out}
    assert left_out == {
        "wesnoth-1.16-music/silence.ogg": "shorter than 20 s",
        "wesnoth-1.16-music/new song.ogg": debian_music.UNLISTED,
    }
    assert found["singularity-music/Through Space.ogg"].split == "test"
    assert found["singularity-music/Chimes They Fade.ogg"].seconds == 43


def test_damaged_archives_and_members_are_named(tmp_path):
    write_package(tmp_path, "nexuiz-music", "stairs.ogg")
    place = tmp_path / debian_music.PACKAGES["nexuiz-music"]
    (one,) = used(tmp_path)
    place.write_bytes(place.read_bytes().replace(b"OggS", b"Oops"))
    with pytest.raises(BadTrack, match=r"music\.pk3: Bad CRC-32 for file 'sound/stairs\.ogg"):
        one.load()
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("sound/stairs.ogg", b"no audio")
    (one,) = used(tmp_path)
    with pytest.raises(BadTrack, match=r"music\.pk3: sound/stairs\.ogg: "):
        one.load()
    place.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"music\.pk3: .*; expected a zip archive: install it"):
        used(tmp_path)


def test_prepare_reads_what_is_there_and_reports_the_rest(tmp_path):
    write_copy(tmp_path / "root")
    flags = [f"--source={tmp_path / 'root'}", f"--output={tmp_path / 'out'}", "--processes=1"]
    flags += ["--record_seconds=1", "--channels=2", "--file_format=array_record"]
    assert prepare.main(["--dataset=debian_music", *flags]) == 0
    report = json.loads((tmp_path / "out/debian_music/report.json").read_text())
    assert report["tracks"]["train"] == 3 and len(report["left_out"]) == 8


def rows() -> list[list[str]]:
    return splits.read_split(debian_music.LIST)


def test_the_list_names_a_licence_and_an_artist_of_every_file():
    licences = collections.Counter(licence for _, _, licence, _, _ in rows())
    assert set(licences) == {
        *("GPL-2", "GPL-2+", "GPL-3+", "CC-BY-SA-3.0", "CC-BY-3.0", "public-domain", "Drascula"),
        "CC-BY-SA-3.0_or_GPL-2+",
    }
    for name, artist, _, split, seconds in rows():
        assert name.partition("/")[0] in debian_music.PACKAGES and artist
        assert split in (*debian_music.SPLITS, *debian_music.REASONS)
        assert (int(seconds) < 20) == (split == "too_short"), name


def test_the_packages_that_are_installed_hold_what_the_list_says():
    there = {name for name, at in debian_music.PACKAGES.items() if (INSTALLED / at).exists()}
    if not there:
        pytest.skip(f"none is installed: {debian_music.INSTALL} {' '.join(debian_music.PACKAGES)}")
    listed = {row[0] for row in rows() if row[0].partition("/")[0] in there}
    found = debian_music.tracks(str(INSTALLED), grid=GRID)
    assert not [one.id for one in found if one.left_out == debian_music.UNLISTED]
    assert len([one for one in found if "/" in one.id]) == len(listed)
    smallest = min((one for one in found if not one.left_out), key=lambda one: one.seconds)
    recording = smallest.load()
    assert abs(len(recording.audio) / 16000 - smallest.seconds) <= 1
