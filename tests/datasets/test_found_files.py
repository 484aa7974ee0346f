"""What lies in the folders of users: names of every kind, links, copies from a Mac, mixtures among
the stems.
"""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tracemalloc

import made_audio
import numpy as np
import pytest
import soundfile

from majl_jax.audio import files, int16, libav
from majl_jax.datasets import records, streamed, whole_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, audio_folder
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import loading

GRID = Grid(16000, 320)
STEM_MP4 = made_audio.CASES.parent / "audio/musdb18_7s/train/Music Delta - 80s Rock.stem.mp4"
needs_av = pytest.mark.skipif(not libav.is_installed(), reason="PyAV is not installed")


def write(path: pathlib.Path, hz: float, seconds: float = 0.5, gain: float = 0.3) -> np.ndarray:
    """A tone with some noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * 16000)) / 16000
    noise = np.random.default_rng(int(hz)).standard_normal(len(time))
    sound = gain * np.sin(2 * np.pi * hz * time) + 0.01 * noise
    soundfile.write(path, sound, 16000, subtype="FLOAT")
    return sound


def run(dataset: str, source: pathlib.Path, output: pathlib.Path, *flags: str) -> int:
    usual = ["--file_format=array_record", "--processes=1", "--record_seconds=0.5"]
    return prepare.main(
        [f"--dataset={dataset}", f"--source={source}", f"--output={output}", *usual, *flags]
    )


def report(output: pathlib.Path, dataset: str) -> dict:
    return json.loads((output / dataset / records.REPORT_FILE).read_text())


@pytest.mark.parametrize(
    "name", ["Mixture", "mixdown", "MIX", "Full Mix", "full_mix", "Mix-Down", "linear_mixture"]
)
def test_a_mixture_is_known_by_its_name_in_any_case(tmp_path, name):
    for song in ("a", "b"):
        for number, stem in enumerate(("vocals", "drums", name)):
            write(tmp_path / f"by_song/{song}/{stem}.wav", 200 + 300 * number)
            write(tmp_path / f"by_source/{stem}/{song}.wav", 200 + 300 * number)
    for dataset, folder in (
        ("stems_coherent", "by_song"),
        ("stems_coherent_by_source", "by_source"),
        ("stems_incoherent", "by_source"),
    ):
        assert READERS[dataset].stems_of(str(tmp_path / folder)) == ("drums", "vocals")


def test_a_stem_that_is_the_sum_of_the_others_is_said_and_not_prepared(tmp_path, capsys):
    for number in range(3):
        folder = tmp_path / f"songs/{number}"
        parts = [write(folder / f"{n}.wav", 200 + 300 * i) for i, n in enumerate("abc")]
        soundfile.write(folder / "bounce.wav", 0.5 * sum(parts), 16000)
    assert run("stems_coherent", tmp_path / "songs", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert "skipped 0: its stem bounce is the sum of the others (to" in told.out
    assert "No track could be used" in told.err
    for path in (tmp_path / "songs").rglob("bounce.wav"):
        write(path, 1700)
    assert run("stems_coherent", tmp_path / "songs", tmp_path / "out") == 0


def test_stems_that_are_alike_one_by_one_are_no_mixture_of_each_other():
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((3, 1000))
    stems = ("a", "b", "c", "d")

    def among(*rows: np.ndarray) -> str:
        return streamed.mixture_among(np.stack(rows) @ np.stack(rows).T, stems[: len(rows)])

    assert among(*parts) == ""
    assert "its stem d is the sum" in among(*parts, parts.sum(0))
    assert "its stem b is the sum" in among(parts[0], parts.sum(0) / 3, *parts[1:])
    loud = parts * np.array([[1.0], [0.1], [0.1]])  # the mixture is all but one of its parts
    assert "its stem d is the sum" in among(*loud, loud.sum(0))
    assert among(parts[0], parts[0] * 0.9, parts[0] * 0.3) == ""  # three of the same
    assert among(parts[0], parts[0] + 0.05 * parts[1], parts[2]) == ""
    assert among(np.zeros(1000), parts[0], parts[0]) == ""
    assert among(parts[0], parts[0]) == ""


def test_linked_folders_are_gone_into_and_no_link_is_followed_in_a_circle(tmp_path, capsys):
    root = tmp_path / "root"
    write(root / "train/a.wav", 300)
    write(tmp_path / "store/c.wav", 400)
    (root / "valid").symlink_to("../store")
    (root / "train/more").symlink_to("../../store")
    (root / "train/again").symlink_to("..")
    (root / "train/itself").symlink_to(".")
    found = {one.id: one.split for one in audio_folder.tracks(str(root), grid=GRID)}
    assert found == {
        "train/a.wav": "train",
        "train/more/c.wav": "train",
        "valid/c.wav": "valid",
    }
    assert run("audio_folder", root, tmp_path / "out") == 0
    assert "2 train, 1 valid, 0 test; 0 skipped" in capsys.readouterr().out


MAC = b"\0\5\x16\7" + bytes(100)


def test_files_of_a_mac_beside_mir1k(tmp_path):
    for name in ("abjones_1_01", "amy_1_01"):
        for place in ("Wavfile", "PitchLabel"):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / place / f"._{name}.wav").write_bytes(MAC)
        sound = np.stack([made_audio.sound(1.0)] * 2, axis=1)
        soundfile.write(tmp_path / f"Wavfile/{name}.wav", sound, 16000)
        (tmp_path / f"PitchLabel/{name}.pv").write_text("60\n" * 49)
    found = READERS["mir1k"].tracks(str(tmp_path), grid=GRID)
    assert [one.id for one in found] == ["abjones_1_01", "amy_1_01"]


def test_files_of_a_mac_beside_medleydb(tmp_path):
    name = "LizNelson_Rainfall"
    folder = tmp_path / "Audio" / name
    for number in (1, 2):
        write(folder / f"{name}_STEMS/{name}_STEM_0{number}.wav", 200 * number)
    (folder / f"._{name}_STEMS").write_bytes(MAC)
    (folder / f"{name}_METADATA.yaml").write_text(
        "stems:\n  S01: {component: melody, instrument: female singer, filename:"
        f" {name}_STEM_01.wav}}\n  S02: {{component: bass, instrument: piano, filename:"
        f" {name}_STEM_02.wav}}\n"
    )
    labels = tmp_path / "Annotations/Melody_Annotations/MELODY1"
    labels.mkdir(parents=True)
    (labels / f"{name}_MELODY1.csv").write_text("0.0,200\n0.0058,200\n")
    (one,) = READERS["medleydb"].tracks(str(tmp_path), grid=GRID)
    assert one.id == name and not one.left_out


@needs_av
def test_files_of_a_mac_beside_musdb18(tmp_path):
    for folder, suffix in (("train", ".stem.mp4"), ("test", ".stem.mp4")):
        (tmp_path / folder).mkdir()
        for name in (f"A - S{suffix}", f"._A - S{suffix}"):
            (tmp_path / folder / name).write_bytes(MAC)
    found = READERS["musdb18"].tracks(str(tmp_path), grid=GRID)
    assert [one.id for one in found] == ["train/A - S", "test/A - S"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@needs_av
def test_names_that_are_not_utf8_are_prepared_and_named(tmp_path, capsys):
    source = tmp_path / "source"
    write(source / "a.wav", 300)
    for name in (b"caf\xe9.wav", b"damaged\xe9.wav"):
        shutil.copy(source / "a.wav", os.fsencode(source) + b"/" + name)
    with open(os.fsencode(source) + b"/damaged\xe9.wav", "r+b") as file:
        file.truncate(3000)
    shutil.copy(made_audio.make(tmp_path, "a.m4a"), os.fsencode(source) + b"/caf\xe9.m4a")
    assert run("audio_folder", source, tmp_path / "out", "--max_bad_fraction=0.5") == 0
    told = capsys.readouterr().out
    assert "3 train, 0 valid, 0 test; 1 skipped" in told
    assert r"skipped damaged\udce9.wav" in told and "truncated" in told
    stored = {one["track"] for one in records.read_tracks(tmp_path / "out/audio_folder", "train")}
    assert stored == {"a.wav", r"caf\udce9.wav", r"caf\udce9.m4a"}


def test_a_flac_of_unknown_length_is_no_reason_to_give_up(tmp_path, capsys):
    write(tmp_path / "source/good.wav", 300)
    made_audio.unknown_length(made_audio.make(tmp_path / "source", "piped.flac"))
    assert run("audio_folder", tmp_path / "source", tmp_path / "out") == 0
    assert "audio_folder: 2 tracks, about 0 MB, 0 MB while at work" in capsys.readouterr().out
    lengths = {
        one["track"]: len(one["stems"])
        for one in records.read_tracks(tmp_path / "out/audio_folder", "train")
    }
    assert lengths == {"good.wav": 8000, "piped.flac": 48000}


def test_what_is_said_of_a_file_that_is_read_stands_in_the_report(tmp_path, capsys):
    source, output = tmp_path / "source", tmp_path / "out"
    write(source / "a.wav", 300)
    made_audio.add(made_audio.make(source, "b.ogg"), b"no page at all" * 9)
    assert run("audio_folder", source, output) == 0
    assert "b.ogg: 126 bytes from byte" in capsys.readouterr().out
    remarks = report(output, "audio_folder")["remarks"]
    assert list(remarks) == ["b.ogg"] and "are no Ogg pages" in remarks["b.ogg"][0]


@needs_av
def test_songs_of_fma_are_prepared_whole(tmp_path):
    (tmp_path / "source/000").mkdir(parents=True)
    made_audio.make(tmp_path, "vbr.mp3").rename(tmp_path / "source/000/000002.mp3")
    assert run("fma", tmp_path / "source", tmp_path / "out") == 0
    (one,) = records.read_tracks(tmp_path / "out/fma", "train")
    assert len(one["stems"]) / 16000 == pytest.approx(3.0, abs=0.15)


@needs_av
def test_joined_mp3s_and_mp4s_are_prepared_whole(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    made_audio.make(source, "vbr.mp3")
    path = made_audio.make(source, "joined.mp3")
    made_audio.add(path, path.read_bytes())
    made_audio.make(source, "a.m4a")
    assert run("audio_folder", source, tmp_path / "out") == 0
    for one in records.read_tracks(tmp_path / "out/audio_folder", "train"):
        expected = 6.0 if one["track"] == "joined.mp3" else 3.0
        assert len(one["stems"]) / 16000 == pytest.approx(expected, abs=0.2), one["track"]


def long_track(tmp_path: pathlib.Path, seconds: float, name: str = "loud.wav"):
    """Stereo beyond full scale, at another rate, and its layout."""
    rng = np.random.default_rng(0)
    sound = rng.uniform(-1.7, 1.7, (int(seconds * 22050), 2)).astype(np.float32)
    soundfile.write(tmp_path / name, sound, 22050, subtype="FLOAT")
    (one,) = audio_folder.tracks(str(tmp_path), grid=dataclasses.replace(GRID, channels=2))
    layout = records.Layout(("mixture",), 2, 16000, 320, 16000, voices=1)
    return one, layout


@pytest.mark.parametrize("kept_bytes", [0, 1 << 30])
def test_a_streamed_track_is_that_which_is_loaded_at_once(tmp_path, monkeypatch, kept_bytes):
    monkeypatch.setattr(streamed, "KEPT_BYTES", kept_bytes)
    one, layout = long_track(tmp_path, 5.0)
    audio, _ = files.read(one.paths[0], sample_rate_hz=16000, channels=2)
    assert np.abs(audio).max() > 1.5
    # As it was made when tracks were loaded at once.
    expected = int16.from_float((audio / max(1.0, float(np.abs(audio).max())))[:, None])
    assert loading.load_one(one, layout, tmp_path).skipped == ""
    found = loading.cached_track(tmp_path, one.id)
    assert found["stems"].shape == expected.shape == (len(found["stems"]), 1, 2)
    np.testing.assert_array_equal(found["stems"][:], expected)
    np.testing.assert_array_equal(found["stems"][1000:70000], expected[1000:70000])
    np.testing.assert_array_equal(loading.load_whole(one, layout)["stems"], expected)
    np.testing.assert_array_equal(one.load().audio, audio[:, None] / np.abs(audio).max())
    assert found["f0_hz"].shape == (len(expected) // 320, 1) and not found["has_pitch"].any()
    assert found["valid_samples"] == len(expected) and found["track"] == one.id
    assert whole_files.read_remarks(loading.cached(tmp_path, one.id)) == ()


def test_memory_does_not_grow_with_the_length_of_a_track(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed, "KEPT_BYTES", 1 << 20)
    one, layout = long_track(tmp_path, 120.0)
    tracemalloc.start()
    try:
        assert loading.load_one(one, layout, tmp_path).skipped == ""
        whole = loading.cached_track(tmp_path, one.id)
        assert sum(1 for _ in loading.cut(whole, layout, drop_silence=True)) == 121
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 120 * 16000 * 2 * 4 > 15e6 and peak < 6e6, f"{peak / 1e6:.1f} MB"


def test_stems_of_a_song_are_streamed_side_by_side(tmp_path):
    for stem, seconds in (("kick", 5.0), ("snare", 4.5)):
        write(tmp_path / f"song/{stem}.wav", 300 if stem == "kick" else 500, seconds)
    (one,) = READERS["stems_coherent"].tracks(str(tmp_path), grid=GRID)
    blocks = list(one.streamed.blocks())
    assert {block.shape[1:] for block in blocks} == {(2, 1)} and len(blocks) > 1
    audio = one.load().audio
    for number, stem in enumerate(("kick", "snare")):
        alone, _ = files.read(tmp_path / f"song/{stem}.wav")
        np.testing.assert_array_equal(audio[: len(alone), number], alone)
        assert not audio[len(alone) :, number].any()
    write(tmp_path / "song/snare.wav", 500, 2.0)
    with pytest.raises(BadTrack, match=r"its stems are 5\.00, 2\.00 s long"):
        one.load()


@pytest.mark.skipif(not made_audio.CASES.is_dir(), reason="../shared/cases is not here")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize(
    ("dataset", "folder", "counts"),
    [
        ("stems_coherent", "capital", "10 train, 1 valid, 1 test"),
        ("audio_folder", "symlink/root", "2 train, 1 valid, 0 test"),
        ("audio_folder", "latin1", "2 train, 0 valid, 0 test"),
        ("mir1k", "mir1k_mac", "2 train, 0 valid, 0 test"),
        ("medleydb", "medleydb_mac", "1 train, 1 valid, 0 test"),
        ("musdb18", "musdb_mac", "3 train, 0 valid, 0 test"),
        ("audio_folder", "streamflac", "2 train, 0 valid, 0 test"),
    ],
)
def test_the_folders_that_users_reported(tmp_path, dataset, folder, counts, capsys):
    made = [str(tmp_path / "made"), *([str(STEM_MP4)] if STEM_MP4.exists() else [])]
    if folder == "musdb_mac" and len(made) == 1:
        pytest.skip("the excerpt of MUSDB18 is not here")
    subprocess.run([sys.executable, str(made_audio.CASES / "make_folders.py"), *made], check=True)
    assert run(dataset, tmp_path / "made" / folder, tmp_path / "out") == 0
    assert f"{counts}; 0 skipped" in capsys.readouterr().out
    if folder == "capital":
        opened = records.open_prepared(tmp_path / "out" / dataset)
        assert opened.layout.stems == ("drums", "vocals")
