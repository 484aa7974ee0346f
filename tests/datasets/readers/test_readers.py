"""Every data set at once: all are there, documented, and read from made-up copies as announced;
every split list divides.

The copies are those of `made_copies`, which the tests of each reader take as well.
"""

import argparse
import collections
import dataclasses
import pathlib
import pickle
import re
import shlex

import numpy as np
import pytest
import soundfile
from etils import epath
from made_copies import (
    audio_sets,
    bach10,
    dagstuhl_choirset,
    debian_music,
    guitarset,
    medleydb,
    mir1k,
    mir_st500,
    musdb18,
    note_sets,
    singing_sets,
    slakh,
    stem_folders,
    ultrastar,
    urmp,
)
from made_modules import song
from places import ROOT

from majl_jax.audio import openmpt
from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, fretsonfire, how_to_prepare, modules
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.prepare import __main__ as prepare

DOCS = ROOT / "docs/data"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
SECTIONS = dict(text.removeprefix("# ").split("\n", 1) for text in PAGES.values())
PROMISED = (
    *("chorales", "quartets", "band", "fretsonfire", "debian_music", "audio_folder"),
    *("mir1k", "medleydb", "mir_st500", "ultrastar", "ikala", "vocadito"),
    *("musdb18", "musdb18_hq", "stems_coherent", "stems_incoherent", "stems_named"),
    *("slakh2100", "slakh2100_redux", "babyslakh", "dagstuhl_choirset"),
    *("urmp", "bach10", "guitarset", "su", "trios", "musicnet", "maestro", "nsynth"),
    *("fma", "e_gmd"),
)
GRID = Grid(16000, 320)


def test_every_data_set_that_the_project_promises_has_a_reader():
    assert len(PROMISED) == len(set(PROMISED)) == 31
    assert set(PROMISED) <= set(READERS), f"missing: {sorted(set(PROMISED) - set(READERS))}"


def test_there_is_a_page_for_each_and_none_for_others():
    headed = [name for heading in SECTIONS for name in heading.split(", ")]
    names = [name for name in headed if re.fullmatch(r"[a-z0-9_]+", name)]
    assert sorted(names) == sorted(READERS), "each name stands in one heading"
    rows = re.findall(r"^\| \[[^]]*\]\((\w+)\.md\) \| ([^|]*) \|", PAGES["index"], re.M)
    for page, listed in rows:
        assert f"# {listed.replace('`', '')}\n" == PAGES[page].partition("\n")[0] + "\n"
    assert sorted(name for _, listed in rows for name in re.findall(r"`(\w+)`", listed)) == sorted(
        READERS
    )


@pytest.mark.parametrize("name", READERS)
def test_the_page_of_each_names_it_and_says_how_to_prepare_it(name):
    (text,) = [text for heading, text in SECTIONS.items() if name in heading.split(", ")]
    assert f"`{name}`" in text
    assert name in [of for one in commands_of(text) for of in one.dataset]


def commands_of(text: str) -> list[argparse.Namespace]:
    """The commands of a page, as `prepare` understands them."""
    found = re.findall(r"python -m majl_jax\.prepare ((?:--\S+ ?)+)", text)
    return [prepare.parse_arguments(shlex.split(command)) for command in found]


def test_commands_give_a_source_where_one_is_needed():
    commands = commands_of("\n".join(PAGES.values()))
    assert len(commands) > 30
    for one in commands:
        needed = [READERS[name].needs_source for name in one.dataset]
        assert all(needed) if one.source else not any(needed), one


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("grid", [None, Grid(22050, 256, 1)])
def test_the_command_that_prepares_each_is_understood(name, grid, tmp_path):
    (command,) = commands_of(how_to_prepare(tmp_path / "prepared" / name, grid))
    assert command.dataset == [name] and command.output == epath.Path(tmp_path / "prepared")
    assert command.source == ("FOLDER" if READERS[name].needs_source else None)
    if grid is not None:
        assert Grid(command.sample_rate_hz, command.hop_samples, command.channels) == grid


def test_a_set_that_no_reader_makes_has_the_plain_command():
    assert how_to_prepare("data/mine") == "python -m majl_jax.prepare --dataset=mine --output=data"


# Of each list: rows, the split of a row, what may not be in two splits, and how many of these each
# split has.
LISTS = {
    "band.txt": (2, lambda row: row[1], {"train": 46, "valid": 6, "test": 10}),
    "choir.txt": (2, lambda row: row[0], {"train": 20, "valid": 4, "test": 8}),
    "chorales.txt": (1, lambda row: row[0], {"train": 292, "valid": 36, "test": 37}),
    "debian_music.txt": (
        3,
        lambda row: row[1] if row[3] in ("train", "valid", "test") else row[0],
        {"train": 32, "valid": 4, "test": 3},
    ),
    "drums.txt": (3, lambda row: row[0], {"train": 16, "valid": 4, "test": 4}),
    "ikala.txt": (1, lambda row: row[0], {"train": 127, "valid": 15, "test": 35}),
    "medleydb.txt": (1, lambda row: row[0], {"train": 8, "valid": 2, "test": 3}),
    "mir1k_author.txt": (1, lambda row: row[0], {"train": 760, "valid": 40, "test": 200}),
    "mir1k_singers.txt": (1, lambda row: row[0], {"train": 13, "valid": 2, "test": 4}),
    "mir1k_songs.txt": (1, lambda row: row[0], {"train": 77, "valid": 11, "test": 22}),
    "modules.txt": (5, lambda row: row[0], {"train": 117, "valid": 27, "test": 37}),
    "quartets.txt": (3, lambda row: row[0].rsplit("/", 1)[0], {"train": 3, "valid": 1, "test": 2}),
    "urmp.txt": (1, lambda row: row[0], {"train": 35, "valid": 9}),
}
WITHOUT_SPLITS = {"musdb18.txt"}  # names songs of its own train folder; test_musdb18 checks it


def test_every_split_list_is_used_by_a_reader_and_checked_here():
    lists = {path.name for path in SPLITS_FOLDER.iterdir()}
    assert lists == set(LISTS) | WITHOUT_SPLITS
    code = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "majl_jax/datasets").rglob("*.py")
    )
    assert {name for name in lists if f'"{name}"' not in code} == set()


@pytest.mark.parametrize("name", LISTS)
def test_nothing_is_in_two_splits(name):
    column, key, sizes = LISTS[name]
    splits = collections.defaultdict(set)
    for row in read_split(SPLITS_FOLDER / name):
        splits[key(row)].add(row[column])
    assert {of for of, where in splits.items() if len(where) > 1} == set()
    counts = collections.Counter(split for where in splits.values() for split in where)
    assert {split: counts[split] for split in sizes} == sizes
    others = {split: n for split, n in counts.items() if split not in sizes}
    # These say of others why they are left out.
    assert name in ("band.txt", "modules.txt", "debian_music.txt") or not others


def test_the_split_by_clip_has_the_leak_that_the_readme_states():
    songs = collections.defaultdict(set)
    for clip, split in read_split(SPLITS_FOLDER / "mir1k_author.txt"):
        songs[split].add(clip.rsplit("_", 1)[0])
    assert len(songs["test"]) == 89 and songs["test"] <= songs["train"]


def write_mir1k(root: pathlib.Path) -> None:
    for singer in ("abjones", "amy", "Ani"):  # one of each view
        mir1k.write_clip(root, f"{singer}_1_01")


def write_musdb18(root: pathlib.Path) -> None:
    pytest.importorskip("av", reason="PyAV (pip install av) is not installed")
    musdb18.write_stem_mp4(root / "train/A - B.stem.mp4")


def write_ikala(root: pathlib.Path) -> None:
    singing_sets.write_clip(root)
    (root / "id_mapping.txt").write_text(singing_sets.SINGERS)


def write_urmp(root: pathlib.Path) -> None:
    for name in ("03_Dance_fl_cl", "06_Dance_fl_cl"):  # one of each half of train
        urmp.write_piece(root, name)


def write_fretsonfire(root: pathlib.Path) -> None:
    tone = 0.2 * np.sin(2 * np.pi * 200 * np.arange(44100) / 44100)
    for file in fretsonfire.FILES.values():
        (root / "muldjord/armygeddon").mkdir(parents=True, exist_ok=True)
        soundfile.write(root / "muldjord/armygeddon" / file, np.stack([tone, tone], axis=1), 44100)


def write_modules(root: pathlib.Path) -> None:
    if not openmpt.is_installed():
        pytest.skip(f"needs libopenmpt: {openmpt.INSTALL}")
    path = root / modules.listed()[-1].path
    path.parent.mkdir(parents=True)
    path.write_bytes(song())


def write_stems(*places: str):
    def write(root: pathlib.Path) -> None:
        for place in places:
            stem_folders.write_audio(root / place, 0.2, channels=2)

    return write


WRITE = {
    "mir1k": write_mir1k,
    "musdb18": write_musdb18,
    "musdb18_hq": lambda root: musdb18.write_wav_song(root, "A - B"),
    "medleydb": lambda root: medleydb.write_track(root, "Amy_One"),
    "mir_st500": lambda root: mir_st500.write_copy(root, "train/7/Mixture.wav"),
    "ultrastar": lambda root: ultrastar.write_song(root / "Someone - One"),
    "ikala": write_ikala,
    "vocadito": singing_sets.write_voice,
    "slakh2100": lambda root: slakh.write_song(root / "train/Track00001"),
    "babyslakh": lambda root: slakh.write_song(root / "Track00001", suffix=".wav"),
    "dagstuhl_choirset": dagstuhl_choirset.write_copy,
    "urmp": write_urmp,
    "bach10": bach10.write_chorale,
    "guitarset": guitarset.write_excerpt,
    "su": note_sets.write_su,
    "trios": note_sets.write_trios,
    "musicnet": note_sets.write_musicnet,
    "maestro": note_sets.write_maestro,
    "nsynth": note_sets.write_nsynth,
    "fma": lambda root: audio_sets.write_fma(root, "000002"),
    "e_gmd": audio_sets.write_e_gmd,
    "audio_folder": lambda root: audio_sets.write_audio(root / "a.wav"),
    "debian_music": debian_music.write_copy,
    "fretsonfire": write_fretsonfire,
    "modules": write_modules,
    "stems_coherent": write_stems("one/drums.wav", "one/bass.wav"),
    "stems_coherent_by_source": write_stems("drums/one.wav", "bass/one.wav"),
    "stems_incoherent": write_stems("drums/kick.wav", "bass/low.wav"),
    "stems_named": write_stems("one/kick.wav", "one/VOX LEAD.wav"),
}
NEEDS_SOURCE = [name for name, reader in READERS.items() if reader.needs_source]


def written(name: str, root: pathlib.Path) -> str:
    """A made-up copy for the reader of this name: its own, or that of the set that it is a view
    of.
    """
    of = max((known for known in WRITE if f"{name}_".startswith(f"{known}_")), key=len, default="")
    assert of, f"no test writes a made-up copy of {name}"
    root.mkdir(exist_ok=True)
    WRITE[of](root)
    return str(root)


@pytest.mark.parametrize("name", NEEDS_SOURCE)
def test_a_made_up_copy_is_read_as_the_reader_announces(tmp_path, name):
    source, reader = written(name, tmp_path / "copy"), READERS[name]
    for channels in reader.channels:
        grid = dataclasses.replace(GRID, channels=channels)
        found = reader.tracks(source, grid=grid, seed=0)
        assert len({one.id for one in found}) == len(found)
        assert {one.split for one in found} <= {"train", "valid", "test"}
        one = next(one for one in found if not one.left_out)
        assert one.seconds > 0 and one.paths and all(path.exists() for path in one.paths)
        recording = pickle.loads(pickle.dumps(one)).load()
        track.check(recording)
        assert recording.stems == reader.stems_of(source) and recording.voices == reader.voices
        assert recording.audio.shape[2] == channels and recording.audio.dtype == np.float32
        assert recording.grid == grid


@pytest.mark.parametrize("name", NEEDS_SOURCE)
def test_a_folder_that_is_no_copy_is_refused_with_what_is_expected(tmp_path, name):
    if name in ("musdb18", "musdb18_no_medleydb"):
        pytest.importorskip("av", reason="PyAV (pip install av) is not installed")
    with pytest.raises(FileNotFoundError, match=r"(is no copy of|no .* found).*[:;] expected"):
        READERS[name].tracks(str(tmp_path), grid=GRID)
    for nowhere in (tmp_path / "nothing", tmp_path / "a file"):
        (tmp_path / "a file").touch()
        with pytest.raises(FileNotFoundError, match=rf"{nowhere.name}.*, but that is no folder$"):
            READERS[name].tracks(str(nowhere), grid=GRID)
    with pytest.raises(ValueError, match=r"^--source is missing: (a|the) folder of .*; expected"):
        READERS[name].tracks(None, grid=GRID)
