"""MUSDB18: made-up copies of both editions, written by real encoders, and the real excerpt."""

import dataclasses
import importlib.util
import pathlib

import numpy as np
import pytest
import soundfile
from made_copies.musdb18 import FILE_RATE, SECONDS, TONES_HZ, sounds, write_stem_mp4, write_wav_song
from places import RECORDINGS

from majl_jax.datasets import records, stem_mp4, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, musdb18
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

REAL = RECORDINGS / "musdb18_7s"
GRID = Grid(16000, 320)
VALID, IN_BOTH = "Skelpolu - Human Mistakes", "Music Delta - Rock"
needs_av = pytest.mark.skipif(
    importlib.util.find_spec("av") is None, reason="PyAV (pip install av) is not installed"
)


def strongest_hz(sound: np.ndarray, rate_hz: int) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.argmax(spectrum)) * rate_hz / len(sound)


def onset_s(sound: np.ndarray, rate_hz: int) -> float:
    return float(np.argmax(np.abs(sound) > 0.5 * np.abs(sound).max())) / rate_hz


def load_only(root: pathlib.Path, edition: str, **options) -> track.Recording:
    (one,) = musdb18.tracks(str(root), edition=edition, grid=dataclasses.replace(GRID, **options))
    recording = one.load()
    track.check(recording)
    return recording


@pytest.mark.parametrize("rate_hz", [16000, 44100])
@pytest.mark.parametrize("edition", ["wav", pytest.param("aac", marks=needs_av)])
def test_every_stem_is_in_its_place_and_in_time(tmp_path, edition, rate_hz):
    if edition == "wav":
        write_wav_song(tmp_path, "A - B")
    else:
        write_stem_mp4(tmp_path / "train" / "A - B.stem.mp4")
    for channels in (1, 2):
        recording = load_only(tmp_path, edition, sample_rate_hz=rate_hz, channels=channels)
        audio = recording.audio
        assert recording.stems == ("drums", "bass", "other", "vocals")
        assert audio.shape == (SECONDS * rate_hz, 4, channels)
        assert recording.has_stems.all() and not recording.has_pitch.any()
        for number, hz in enumerate(TONES_HZ.values()):
            left = audio[:, number, 0]
            assert strongest_hz(left[rate_hz // 2 :], rate_hz) == pytest.approx(hz, abs=1.5)
            assert onset_s(left, rate_hz) == pytest.approx(0.5, abs=0.004)
            # Mono is the mean of the channels, which are as 1 to 1/2.
            loudness = np.abs(audio[int(0.7 * rate_hz) : int(1.4 * rate_hz), number]).max(0)
            expected = [0.15] if channels == 1 else [0.2, 0.1]
            np.testing.assert_allclose(loudness, expected, rtol=0.06)


def test_stems_beyond_full_scale_are_scaled_together(tmp_path):
    song = write_wav_song(tmp_path, "A - B")
    loud = sounds(gain=1.8)["drums"]
    soundfile.write(song / "drums.wav", loud, FILE_RATE, subtype="FLOAT")
    audio = load_only(tmp_path, "wav", channels=2).audio
    peaks = np.abs(audio[:, :, 0]).max(0)
    assert peaks[0] == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(peaks[1:], 0.2 / 1.8, rtol=0.02)


def test_the_mixture_on_disk_is_the_sum_of_the_stems(tmp_path):
    write_wav_song(tmp_path / "copy", "A - B")
    write_wav_song(tmp_path / "copy", "C - D", "test")
    flags = ["--file_format=array_record", "--processes=1", "--channels=2", "--record_seconds=1"]
    output = tmp_path / "out"
    source = f"--source={tmp_path / 'copy'}"
    assert prepare.main(["--dataset=musdb18_hq", source, f"--output={output}", *flags]) == 0
    opened = records.open_prepared(output / "musdb18_hq")
    assert opened.layout.channels == 2 and sorted(opened.splits) == ["test", "train"]
    (song,) = records.read_tracks(output / "musdb18_hq", "train")
    stems = song["stems"]
    assert song["track"] == "train/A - B" and stems.shape == (24000, 4, 2)
    given = sum(sounds().values())[int(0.7 * FILE_RATE) : int(1.4 * FILE_RATE)]
    mixture = stems.astype(np.int32).sum(1)[int(0.7 * 16000) : int(1.4 * 16000)] / 32768
    assert np.sqrt((mixture**2).mean()) == pytest.approx(np.sqrt((given**2).mean()), rel=0.01)


def test_the_split(tmp_path):
    rows = read_split(musdb18.SPLIT_LIST)
    names = {
        kind: {" ".join(r[1:]) for r in rows if r[0] == kind} for kind in ("valid", "medleydb")
    }
    assert len(names["valid"]) == 14 and len(names["medleydb"]) == 46 and len(rows) == 60
    for name, folder in ((VALID, "train"), (IN_BOTH, "train"), ("A - B", "train"), (VALID, "test")):
        write_wav_song(tmp_path, name, folder)
    found = {t.id: t.split for t in READERS["musdb18_hq"].tracks(str(tmp_path), grid=GRID)}
    assert found == {
        f"train/{VALID}": "valid",
        f"train/{IN_BOTH}": "train",
        "train/A - B": "train",
        f"test/{VALID}": "test",
    }
    others = READERS["musdb18_hq_no_medleydb"].tracks(str(tmp_path), grid=GRID)
    assert [t.id for t in others if t.left_out] == [f"train/{IN_BOTH}"]


@needs_av
def test_editions_do_not_take_each_others_songs(tmp_path):
    write_wav_song(tmp_path, "A - B")
    with pytest.raises(FileNotFoundError, match=r"is no copy of MUSDB18: .*\.stem\.mp4"):
        musdb18.tracks(str(tmp_path), edition="aac", grid=GRID)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "C - D.stem.mp4").touch()
    assert [t.id for t in musdb18.tracks(str(tmp_path), edition="wav", grid=GRID)] == [
        "train/A - B"
    ]
    assert [t.id for t in musdb18.tracks(str(tmp_path), edition="aac", grid=GRID)] == ["test/C - D"]


def test_a_folder_that_is_no_copy_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no copy of MUSDB18-HQ: expected train/ARTIST"):
        musdb18.tracks(str(tmp_path), edition="wav", grid=GRID)
    with pytest.raises(ValueError, match="--source is missing: the folder of MUSDB18-HQ"):
        musdb18.tracks(None, edition="wav", grid=GRID)


def test_without_pyav_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stem_mp4, "can_be_read", lambda: False)
    assert prepare.main(["--dataset=musdb18", f"--source={tmp_path}", f"--output={tmp_path}"]) == 1
    assert "`pip install av`; or prepare musdb18_hq" in capsys.readouterr().err


def test_bad_wav_songs_are_refused(tmp_path):
    song = write_wav_song(tmp_path, "A - B")
    (song / "bass.wav").unlink()
    with pytest.raises(ValueError, match=r"bass\.wav: no such file"):
        load_only(tmp_path, "wav")
    soundfile.write(song / "bass.wav", np.full((2000, 2), 0.1), FILE_RATE)
    with pytest.raises(BadTrack, match=r"its stems are 1\.50, 0\.05, 1\.50, 1\.50 s long"):
        load_only(tmp_path, "wav")
    (song / "bass.wav").write_bytes((song / "drums.wav").read_bytes()[:9000])
    with pytest.raises(ValueError, match=r"bass\.wav: .*truncated"):
        load_only(tmp_path, "wav")


@needs_av
def test_bad_mp4_songs_are_refused(tmp_path):
    path = write_stem_mp4(tmp_path / "train" / "A - B.stem.mp4", streams=3)
    with pytest.raises(BadTrack, match=r"A - B\.stem\.mp4: 3 audio streams, expected 4 or more"):
        load_only(tmp_path, "aac")
    path.write_bytes(b"")
    with pytest.raises(BadTrack, match=r"A - B\.stem\.mp4: cannot be decoded"):
        load_only(tmp_path, "aac")
    whole = write_stem_mp4(path).read_bytes()
    for share, message in (
        (0.7, r"stream \d ends at .* the file is truncated"),
        (0.01, "cannot be"),
    ):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BadTrack, match=rf"A - B\.stem\.mp4: {message}"):
            load_only(tmp_path, "aac")
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(BadTrack, match=r"A - B\.stem\.mp4: no such file"):
        load_only(tmp_path, "aac")


@needs_av
@pytest.mark.skipif(
    not REAL.is_dir(), reason="the excerpt (../shared/audio/musdb18_7s) is not here"
)
def test_the_real_excerpt():
    recording = load_only(REAL, "aac", sample_rate_hz=44100, channels=2)
    assert recording.audio.shape == (299880, 4, 2) and not recording.has_pitch.any()
    (one,) = musdb18.tracks(str(REAL), edition="aac", grid=GRID)
    mixture = stem_mp4.read_stream(one.paths[0], 0, sample_rate_hz=44100, channels=2)
    error = mixture - recording.audio.sum(1)
    snr_db = 10 * np.log10((mixture**2).sum() / (error**2).sum())
    assert snr_db == pytest.approx(31.6, abs=0.2)
