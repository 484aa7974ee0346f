"""Dagstuhl ChoirSet: made-up copies with all kinds of takes, and the real excerpt of one."""

import collections
import pathlib
import pickle

import numpy as np
import pytest
import soundfile
from made_copies.dagstuhl_choirset import (
    QUARTET_A,
    QUARTET_B,
    RATE,
    SECONDS,
    write_copy,
    write_take,
)
from places import RECORDINGS

from majl_jax.audio import files
from majl_jax.datasets import records, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, dagstuhl_choirset
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

REAL = RECORDINGS / "mirdata_fixtures/dagstuhl_choirset"
GRID = Grid(16000, 320)


def test_the_takes_with_a_microphone_in_every_part_are_used(tmp_path):
    write_copy(tmp_path)
    found = dagstuhl_choirset.tracks(str(tmp_path), grid=GRID)
    assert [one.id for one in found if not one.left_out] == [
        "DCS_LI_QuartetA_Take01",
        "DCS_LI_QuartetB_Overacted",
        "DCS_SE_FullChoir_ScaleUpDownPiano01",
        "DCS_TP_FullChoir_Outtake",
    ]
    assert {one.id for one in found if one.left_out == dagstuhl_choirset.NOT_ALL_PARTS} == {
        "DCS_LI_QuartetA_Solo04",
        "DCS_LI_FullChoir_Solo02",
        "DCS_LI_Basses_Take01",
        "DCS_TP_FullChoir_Take09",
    }
    by_name = {one.id: [path.stem.split("_")[-2] for path in one.paths] for one in found}
    assert by_name["DCS_LI_QuartetA_Take01"] == list(QUARTET_A)
    assert by_name["DCS_TP_FullChoir_Outtake"] == list(QUARTET_B)
    assert all(path.stem.endswith("_DYN") for one in found for path in one.paths)


def test_male_is_tenor_and_bass(tmp_path):
    write_take(tmp_path, "LI_QuartetA_Take01", QUARTET_A)
    (one,) = dagstuhl_choirset.tracks(str(tmp_path), grid=GRID)
    recording = pickle.loads(pickle.dumps(one)).load()
    track.check(recording)
    assert recording.stems == ("female", "male") == READERS["dagstuhl_choirset"].stems
    assert recording.audio.shape == (8000, 2, 1)
    assert recording.has_stems.all() and not recording.has_pitch.any()
    np.testing.assert_allclose(recording.audio[4000, :, 0], [0.03, 0.12], atol=1e-3)
    assert one.seconds == SECONDS


def test_of_several_singers_the_first_is_taken(tmp_path):
    write_take(tmp_path, "TP_FullChoir_Take01", (*QUARTET_B, "S10", "S2", "B1"))
    (one,) = dagstuhl_choirset.tracks(str(tmp_path), grid=GRID)
    assert [path.stem.split("_")[-2] for path in one.paths] == ["S1", "A2", "T2", "B1"]


def touch_takes(root: pathlib.Path, piece: str, count: int) -> None:
    folder = root / "audio_wav_22050_mono"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        for singer in QUARTET_A:
            (folder / f"DCS_{piece}_QuartetA_Take{number:02}_{singer}_DYN.wav").touch()


def test_each_piece_is_split_into_tenths(tmp_path):
    for piece, count in (("LI", 16), ("TP", 7), ("SE", 60)):  # as many as the data set has
        touch_takes(tmp_path, piece, count)
    found = dagstuhl_choirset.tracks(str(tmp_path), grid=GRID)
    assert len(found) == 83
    counts = collections.Counter((one.group, one.split) for one in found)
    assert counts == {
        **{("LI", "train"): 13, ("LI", "valid"): 1, ("LI", "test"): 2},
        **{("TP", "train"): 5, ("TP", "valid"): 1, ("TP", "test"): 1},
        **{("SE", "train"): 49, ("SE", "valid"): 5, ("SE", "test"): 6},
    }
    splits = [one.split for one in found]
    again = dagstuhl_choirset.tracks(str(tmp_path), seed=0, grid=GRID)
    other = dagstuhl_choirset.tracks(str(tmp_path), seed=1, grid=GRID)
    assert splits == [one.split for one in again] != [one.split for one in other]


def test_it_is_found_below_the_folder_of_its_archive(tmp_path):
    write_take(tmp_path / "DagstuhlChoirSet_V1.2.3", "LI_QuartetA_Take01", QUARTET_A)
    assert len(dagstuhl_choirset.tracks(str(tmp_path), grid=GRID)) == 1


def test_a_folder_that_is_no_copy_is_refused(tmp_path):
    (tmp_path / "audio_wav").mkdir()
    soundfile.write(tmp_path / "audio_wav/DCS_LI_QuartetA_Take01_S1_DYN.wav", np.ones(9), RATE)
    with pytest.raises(
        FileNotFoundError, match="no copy of the Dagstuhl ChoirSet: expected audio_"
    ):
        dagstuhl_choirset.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing: the folder of the Dagstuhl"):
        dagstuhl_choirset.tracks(None, grid=GRID)


def test_bad_takes_are_named(tmp_path):
    write_take(tmp_path, "LI_QuartetA_Take01", QUARTET_A)
    (one,) = dagstuhl_choirset.tracks(str(tmp_path), grid=GRID)
    tenor = one.paths[2]
    tenor.write_bytes(tenor.read_bytes()[:9000])
    with pytest.raises(files.AudioFileError, match=r"T1_DYN\.wav: .*truncated"):
        one.load()
    soundfile.write(tenor, np.full(4 * RATE, 0.1), RATE)
    with pytest.raises(BadTrack, match=r"stems are 0\.50, 0\.50, 4\.00, 0\.50 s long"):
        one.load()
    tenor.unlink()
    with pytest.raises(files.AudioFileError, match=r"T1_DYN\.wav: no such file"):
        one.load()
    # Another rate, and stereo.
    soundfile.write(tenor, np.full((int(SECONDS * 44100), 2), [0.08, 0.0]), 44100)
    np.testing.assert_allclose(one.load().audio[4000, :, 0], [0.03, 0.12], atol=1e-3)


def test_prepare_counts_what_is_left_out(tmp_path, capsys):
    write_copy(tmp_path / "copy")
    flags = ["--file_format=array_record", "--processes=1", "--record_seconds=0.4"]
    folders = [f"--source={tmp_path / 'copy'}", f"--output={tmp_path / 'out'}"]
    assert prepare.main(["--dataset=dagstuhl_choirset", *folders, *flags]) == 0
    text = capsys.readouterr().out
    assert "4 train, 0 valid, 0 test; 0 skipped" in text  # two takes of a piece are all train
    assert f"4 left out: {dagstuhl_choirset.NOT_ALL_PARTS}" in text
    song = next(records.read_tracks(tmp_path / "out/dagstuhl_choirset", "train"))
    np.testing.assert_allclose(song["stems"][4000, :, 0] / 32768, [0.03, 0.12], atol=1e-3)


@pytest.mark.skipif(not REAL.is_dir(), reason="the excerpt (../shared/audio) is not here")
def test_the_real_excerpt():
    (one,) = dagstuhl_choirset.tracks(str(REAL), grid=GRID)
    assert (one.id, one.split, one.left_out) == ("DCS_LI_QuartetB_Take04", "train", "")
    recording = one.load()
    track.check(recording)
    assert recording.audio.shape == (16000, 2, 1)
    assert (np.sqrt((recording.audio**2).mean((0, 2))) > 1e-4).all()
    singers = [soundfile.read(path)[0] for path in one.paths]
    at_its_rate = dagstuhl_choirset.tracks(str(REAL), grid=Grid(22050, 441))
    audio = at_its_rate[0].load().audio[:, :, 0]
    np.testing.assert_allclose(audio[:, 0], singers[0] + singers[1], atol=1e-6)
    np.testing.assert_allclose(audio[:, 1], singers[2] + singers[3], atol=1e-6)
