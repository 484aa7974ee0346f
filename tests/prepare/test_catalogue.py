"""`prepare --list`: every data set once, and what is there of it."""

import pytest
from made_copies.debian_music import write_package

from majl_jax.datasets.readers import READERS, debian_music, fretsonfire
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import catalogue

ENTRIES = catalogue.entries()
OF_NAME = {name: entry for entry in ENTRIES for name in entry.names}


def test_every_data_set_is_listed_once():
    names = [name for entry in ENTRIES for name in entry.names]
    assert sorted(names) == sorted(READERS)
    for entry in ENTRIES:
        assert entry.what and entry.labels and entry.origin


@pytest.mark.parametrize("name", READERS)
def test_built_in_is_what_needs_no_source(name):
    assert (OF_NAME[name].origin == catalogue.RENDERED) == (not READERS[name].needs_source)


def test_a_package_that_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda name: None)
    assert catalogue.state(OF_NAME["choir"], tmp_path).startswith("pip install midirenderer")
    assert catalogue.state(OF_NAME["fma"], tmp_path) == "--source="


def test_installed_packages_are_told_from_missing_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "ROOT", tmp_path)
    music, songs = OF_NAME["debian_music"], OF_NAME["fretsonfire"]
    assert catalogue.state(music, tmp_path) == (
        f"{debian_music.INSTALL} {' '.join(debian_music.PACKAGES)}"
    )
    assert catalogue.state(songs, tmp_path) == fretsonfire.INSTALL
    said = catalogue.state(OF_NAME["modules_pitch"], tmp_path)
    assert said.startswith("apt-get install") and "libopenmpt0" in said and "ballz-data" in said
    write_package(tmp_path, "nexuiz-music", "stairs.ogg")
    said = catalogue.state(music, tmp_path)
    assert said.startswith("1 of 10 packages, installed: --source=/; apt-get install")
    assert "nexuiz" not in said and "asc-music" in said
    (tmp_path / fretsonfire.SONGS).mkdir(parents=True)
    assert catalogue.state(songs, tmp_path) == "installed: --source=/"
    for package in debian_music.PACKAGES:
        write_package(tmp_path, package, "one.ogg", seconds=0.1)
    assert catalogue.state(music, tmp_path) == "installed: --source=/"


def test_the_command_prints_them_and_what_is_prepared(tmp_path, capsys):
    (tmp_path / "mir1k_few").mkdir()
    (tmp_path / "mir1k_few/index.json").write_text("{}")
    assert prepare.main(["--list", f"--output={tmp_path}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "Chinese pop | voice, rest, pitch | 133 min, 0.5 GB | none stated | its authors" in printed
    )
    assert "[prepared: mir1k_few; --source=]" in printed
    assert all(f"{name}" in printed for name in READERS)
