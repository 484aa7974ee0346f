"""Bach10: a made-up copy, the pitches of its parts, and what is wrong with a chorale."""

import dataclasses
import pathlib

import numpy as np
import pytest
import scipy.interpolate
import scipy.io
from made_copies.bach10 import LOW_MIDI, NAME, SECONDS, hz, row_s, truth_midi, write_chorale

from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, bach10
from majl_jax.datasets.track import BadTrack

GRID = Grid(16000, 160)


def load(folder: pathlib.Path, **options) -> track.Recording:
    recording = bach10.load(folder, grid=dataclasses.replace(GRID, **options))
    track.check(recording)
    return recording


def test_parts_and_labels(tmp_path):
    recording = load(write_chorale(tmp_path))
    assert recording.stems == READERS["bach10"].stems and recording.audio.shape == (32000, 4, 1)
    assert recording.has_stems.all() and recording.has_pitch.all()
    for part in range(4):
        sound = recording.audio[3200:8000, part, 0]
        heard = (
            np.argmax(np.abs(np.fft.rfft(sound * np.hanning(4800), 1 << 15))) * 16000 / (1 << 15)
        )
        assert heard == pytest.approx(hz(LOW_MIDI)[part], abs=2)
        assert recording.f0_hz[30, part] == pytest.approx(hz(LOW_MIDI)[part])
        assert recording.f0_hz[100, part] == pytest.approx(hz(LOW_MIDI + 7)[part])
        assert recording.f0_hz[170, part] == 0


@pytest.mark.parametrize(("rate_hz", "hop"), [(16000, 160), (22050, 256), (44100, 512)])
def test_row_i_is_at_23_ms_plus_10_i_at_any_rate(tmp_path, rate_hz, hop):
    recording = load(write_chorale(tmp_path), sample_rate_hz=rate_hz, hop_samples=hop)
    times_s = np.arange(int(SECONDS * rate_hz) // hop) * hop / rate_hz
    rows = hz(truth_midi(row_s()))
    nearest = scipy.interpolate.interp1d(
        row_s(), rows, "nearest", bounds_error=False, fill_value=(rows[:, 0], rows[:, -1])
    )
    np.testing.assert_allclose(recording.f0_hz.T, nearest(times_s), rtol=1e-6)


def test_without_parts_it_is_the_mixture(tmp_path):
    folder = write_chorale(tmp_path)
    with_parts = load(folder)
    for stem in bach10.STEMS:
        (folder / f"{NAME}-{stem}.wav").unlink()
    recording = load(folder)
    assert not recording.has_stems.any() and not recording.audio[:, 1:].any()
    np.testing.assert_allclose(recording.audio[:, 0], with_parts.audio.sum(1), atol=1e-5)
    np.testing.assert_array_equal(recording.f0_hz, with_parts.f0_hz)


def test_the_saxophone_is_found_as_the_release_spells_it(tmp_path):
    folder = write_chorale(tmp_path)
    expected = load(folder)
    (folder / f"{NAME}-saxophone.wav").rename(folder / f"{NAME}-saxphone.wav")
    np.testing.assert_array_equal(load(folder).audio, expected.audio)
    (one,) = bach10.tracks(str(tmp_path), grid=GRID)
    assert all(path.is_file() for path in one.paths)


def test_all_are_test(tmp_path):
    for name in ("01-One", "10-Ten", "Code"):
        (tmp_path / name).mkdir()
    found = READERS["bach10"].tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split) for one in found] == [("01-One", "test"), ("10-Ten", "test")]


def test_a_wrong_folder_is_told_what_is_expected(tmp_path):
    for source in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match="no copy of Bach10: expected NN-Name/"):
            bach10.tracks(str(source), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing"):
        bach10.tracks(None, grid=GRID)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"not MATLAB at all, but longer than a header" * 9, "expected a MATLAB file"),
        ({"Other": np.zeros((4, 9))}, "holds no GTF0s"),
        ({"GTF0s": np.zeros((3, 9))}, r"shape \(3, 9\)"),
        ({"GTF0s": np.zeros((4, 0))}, r"shape \(4, 0\)"),
        ({"GTF0s": "words"}, "expected a MATLAB file"),
        ({"GTF0s": np.full((4, 195), np.nan)}, "goes from nan"),
        ({"GTF0s": np.full((4, 195), 440.0)}, "goes from 440 to 440"),
        ({"GTF0s": np.full((4, 195), -1.0)}, "goes from -1 to -1"),
        ({"GTF0s": np.full((4, 9), 60.0)}, r"ends at 0\.1 s, its audio at 2\.0 s"),
    ],
)
def test_bad_annotations_are_named(tmp_path, content, message):
    folder = write_chorale(tmp_path)
    path = folder / f"{NAME}-GTF0s.mat"
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        scipy.io.savemat(path, content)
    with pytest.raises(BadTrack, match=message) as error:
        bach10.load(folder, grid=GRID)
    assert str(path) in str(error.value)


def test_a_cut_off_annotation_file_is_named(tmp_path):
    folder = write_chorale(tmp_path)
    path = folder / f"{NAME}-GTF0s.mat"
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(BadTrack, match=r"GTF0s\.mat: "):
        bach10.load(folder, grid=GRID)


def test_missing_and_bad_audio_is_named(tmp_path):
    folder = write_chorale(tmp_path)
    path = folder / f"{NAME}-saxophone.wav"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"-saxophone\.wav"):
        bach10.load(folder, grid=GRID)
    path.unlink()
    with pytest.raises(BadTrack, match=r"-saxophone\.wav: no such file, while other parts"):
        bach10.load(folder, grid=GRID)
    for wav in folder.glob("*.wav"):
        wav.unlink()
    with pytest.raises(BadTrack, match=r"01-AchGott\.wav: no such file, nor the four parts"):
        bach10.load(folder, grid=GRID)
