"""Songs of many parts: sorted by their names into sums, whatever their folders look like."""

import json

import numpy as np
import pytest
import soundfile
from made_copies.stem_folders import write_audio
from places import RECORDINGS

from majl_jax.audio import libav
from majl_jax.datasets import records, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, named_stems
from majl_jax.prepare import __main__ as prepare

GRID = Grid(16000, 320)


def write(root, **levels: float) -> None:
    """Parts by their paths, ending in __ for / and _ for a space, and constant levels."""
    for name, level in levels.items():
        path = root / (name.replace("__", "/").replace("_", " ") + ".wav")
        write_audio(path, level)


def test_parts_are_summed_by_stem_and_a_stem_without_a_part_is_silent(tmp_path):
    write(tmp_path, A__VOX_LEAD=0.1, A__BGVOX=0.05, A__KICK=0.2, A__SY_BASS=0.3, A__KEYS=-0.02)
    write(tmp_path, B__vocals=0.1, B__drums=0.2, B__Mix=0.3)
    one, two = named_stems.tracks(str(tmp_path), grid=GRID)
    assert (one.id, two.id) == ("A", "B")
    first, second = one.load(), two.load()
    assert first.stems == ("vocals", "drums", "bass", "other")
    np.testing.assert_allclose(first.audio[100, :, 0], [0.15, 0.2, 0.3, -0.02], atol=1e-4)
    np.testing.assert_allclose(second.audio[100, :, 0], [0.1, 0.2, 0.0, 0.0], atol=1e-4)
    assert first.has_stems.all() and second.has_stems.all()
    assert not first.has_pitch.any()
    (said,) = first.remarks
    assert said == "vocals: BGVOX, VOX LEAD; drums: KICK; bass: SY BASS; other: KEYS"
    (said,) = second.remarks
    assert said.endswith("bass: silence; other: silence; left out by the table of names: Mix")


def test_a_mix_of_any_name_is_in_no_stem_and_named(tmp_path):
    write(tmp_path, A__VOX=0.1, A__KICK=0.2, A__Rough_Mix=0.3, A__MIX_01=0.3)
    (one,) = named_stems.tracks(str(tmp_path), grid=GRID)
    recording = one.load()
    assert recording.stems == ("vocals", "drums")
    (said,) = recording.remarks
    assert said.endswith("left out by the table of names: MIX 01, Rough Mix")


def test_a_song_is_the_folder_that_is_called_neither_as_a_stem_nor_stems(tmp_path):
    write(tmp_path, Artist__One__drums__01=0.1, Artist__One__drums__sub__02=0.2)
    write(tmp_path, Artist__One__Vocals__a=0.4, Artist__Two__Stems__bass=0.1)
    write(tmp_path, Artist__Two__Stems__gtr=0.2, loose=0.5)
    found = named_stems.tracks(str(tmp_path), grid=GRID)
    assert [one.id for one in found] == ["Artist/One", "Artist/Two", "loose.wav"]
    assert found.pop().left_out == named_stems.LOOSE
    # 02 lies in a folder that is called as bass.
    expected = {"Artist/One": [0.4, 0.1, 0.2, 0.0], "Artist/Two": [0.0, 0.0, 0.1, 0.2]}
    for one in found:
        np.testing.assert_allclose(one.load().audio[9, :, 0], expected[one.id], atol=1e-4)


def test_a_title_with_a_word_of_the_table_is_no_stem(tmp_path):
    """Two songs would become one, and a synthesizer drums."""
    write(tmp_path, Rush__Tom_Sawyer__Vox=0.1, Rush__Tom_Sawyer__Synth_1=0.2)
    write(tmp_path, Rush__Singularity__Vox=0.3, Rush__Singularity__Kick=0.1)
    write(tmp_path, Rush__Beat_It__Lead_Vox_2__a=0.1, Rush__Beat_It__Drums_Bus__b=0.2)
    found = named_stems.tracks(str(tmp_path), grid=GRID)
    assert [one.id for one in found] == ["Rush/Beat It", "Rush/Singularity", "Rush/Tom Sawyer"]
    levels = [one.load().audio[9, :, 0].tolist() for one in found]
    expected = [[0.1, 0.2, 0.0], [0.3, 0.1, 0.0], [0.1, 0.0, 0.2]]
    np.testing.assert_allclose(levels, expected, atol=1e-4)


def test_a_part_in_two_formats_counts_once(tmp_path):
    write(tmp_path, A__vocals=0.1, A__drums=0.2)
    soundfile.write(tmp_path / "A/vocals.flac", np.full(16_000, 0.3), 16_000)
    (one,) = named_stems.tracks(str(tmp_path), grid=GRID)
    np.testing.assert_allclose(one.load().audio[9, :, 0], [0.1, 0.2], atol=1e-4)


def test_folders_of_splits_are_kept_and_else_the_seed_draws(tmp_path):
    for number, split in enumerate(("train", "validation", "test", "elsewhere")):
        write(tmp_path / "a", **{f"{split}__s{number}__vox": 0.1, f"{split}__s{number}__hh": 0.1})
        write(tmp_path / "b", **{f"s{number}__vox": 0.1, f"s{number}__hh": 0.1})
    found = named_stems.tracks(str(tmp_path / "a"), grid=GRID)
    assert found.pop(0).left_out == found.pop(0).left_out == source_files.OUTSIDE
    assert [(one.id, one.split) for one in found] == [
        ("test/s2", "test"),
        ("train/s0", "train"),
        ("validation/s1", "valid"),
    ]
    drawn = [one.split for one in named_stems.tracks(str(tmp_path / "b"), grid=GRID)]
    assert sorted(drawn) == ["test", "train", "train", "valid"]


def test_shorter_parts_end_in_silence_and_a_mixture_is_noticed(tmp_path):
    generator = np.random.default_rng(0)
    parts = {"vox": generator.normal(0, 0.1, 40000), "kick": generator.normal(0, 0.1, 8000)}
    (tmp_path / "A").mkdir()
    for name, samples in parts.items():
        soundfile.write(tmp_path / f"A/{name}.wav", samples, 16000)
    (one,) = named_stems.tracks(str(tmp_path), grid=GRID)
    audio = one.load().audio
    assert len(audio) == 40000 and not audio[8000:, 1].any() and audio[:8000, 1].any()
    parts["song final"] = parts["vox"] + np.pad(parts["kick"], (0, 32000))
    soundfile.write(tmp_path / "A/song final.wav", parts["song final"], 16000)
    (one,) = named_stems.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(ValueError, match=r"song final\.wav is the sum of the others"):
        one.load()


def test_songs_of_one_stem_and_files_that_cannot_be_read_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(libav, "is_installed", lambda: False)
    write(tmp_path, A__vox=0.1, A__hh=0.1, B__vox=0.1, C__vox=0.1, C__hh=0.1)
    (tmp_path / "C/bass.m4a").touch()
    found = {one.id: one.left_out for one in named_stems.tracks(str(tmp_path), grid=GRID)}
    assert found["A"] == "" and found["B"] == "vocals alone: expected two stems or more"
    assert found["C"].startswith(".m4a files are read with PyAV, which is not installed")


def test_files_of_one_stem_only_ask_for_a_table(tmp_path):
    write(tmp_path, A__one=0.1, A__two=0.1)
    with pytest.raises(ValueError, match="all files are of the stem other, expected two stems"):
        named_stems.find_stems(str(tmp_path))


def test_prepare_takes_a_table(tmp_path, capsys):
    write(tmp_path / "songs", A__gtr=0.1, A__flute=0.2, A__tabla=0.3)
    table = tmp_path / "names.txt"
    table.write_text("guitar: gtr\ndrums: tabla\n")
    flags = [f"--source={tmp_path / 'songs'}", f"--output={tmp_path / 'out'}", "--processes=1"]
    flags += ["--record_seconds=0.5", "--file_format=array_record", f"--names={table}"]
    assert prepare.main(["--dataset=stems_named", *flags]) == 0
    prepared = records.open_prepared(tmp_path / "out/stems_named")
    assert prepared.layout.stems == ("guitar", "drums", "other")
    assert prepared.options["names"] == str(table)
    report = json.loads((tmp_path / "out/stems_named/report.json").read_text())
    assert report["remarks"] == {"A": ["guitar: gtr; drums: tabla; other: flute"]}
    (record,) = records.read_records(tmp_path / "out/stems_named", "train")
    assert record["stems"][5, :, 0].tolist() == pytest.approx([3277, 9830, 6554], abs=1)
    table.write_text("drums: gtr\nguitar: tabla\n")
    assert prepare.main(["--dataset=stems_named", *flags]) == 1
    assert "was prepared with other options (names_content=" in capsys.readouterr().err


def test_seven_real_songs_are_read_sample_by_sample():
    root = RECORDINGS / "remixed_stems"
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    assert READERS["stems_named"].stems_of(str(root)) == ("vocals", "drums", "bass", "other")
    found = named_stems.tracks(str(root), grid=GRID)
    assert len(found) == 7 and not any(one.left_out for one in found)
    (one,) = [one for one in found if one.id == "Caesium"]
    assert one.streamed is not None and one.streamed.remarks == ()
    block = next(one.streamed.blocks())
    for number, stem in enumerate(one.streamed.stems):
        expected, _ = soundfile.read(root / f"Caesium/{stem}.flac", frames=len(block))
        np.testing.assert_allclose(block[:, number, 0], expected, atol=1e-6)
