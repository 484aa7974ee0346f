"""Audio files: what is read, what is refused and how, and that writing is whole or not at all."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import soxr

from majl_jax.audio import files, resampling

RATE_HZ = 16_000


@pytest.fixture
def tone(tmp_path):
    """Writes a tone as a file of the wanted kind and returns (path, the samples as stored)."""

    def make(name="tone.wav", *, samples=20_000, channels=2, sample_rate_hz=RATE_HZ, **kind):
        time = np.arange(samples)[:, None] / sample_rate_hz
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (samples, channels))
        audio = noise * (name == "noise.ogg") + 0.5 * np.cos(
            2 * np.pi * (220 + 110 * np.arange(channels)) * time
        )
        path = tmp_path / name
        soundfile.write(path, audio.astype(np.float32), sample_rate_hz, **kind)
        return path, soundfile.read(path, dtype="float32", always_2d=True)[0]

    return make


def cut(path, share):
    """Keeps the first part of a file, as a broken download does."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
def test_reads_every_common_format_in_small_blocks(tone, name):
    path, audio = tone(name)
    blocks = list(files.stream(path, block_samples=777))
    assert max(map(len, blocks)) <= 777
    np.testing.assert_allclose(np.concatenate(blocks), audio, atol=1e-6)
    info = files.inspect(path)
    assert (info.sample_rate_hz, info.channels, info.samples) == (RATE_HZ, 2, 20_000)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("samples", [1, 100, 20_001])
def test_streamed_resampling_equals_resampling_the_whole(tone, rate_hz, samples):
    path, audio = tone(samples=samples, sample_rate_hz=rate_hz, subtype="FLOAT")
    result, got_rate_hz = files.read(path, sample_rate_hz=RATE_HZ)
    assert got_rate_hz == RATE_HZ
    assert len(result) == max(1, round(samples * RATE_HZ / rate_hz))
    whole = audio if rate_hz == RATE_HZ else soxr.resample(audio, rate_hz, RATE_HZ)
    np.testing.assert_allclose(result[: len(whole)], whole, atol=1e-7)


def test_a_resampled_tone_keeps_pitch_and_time(tone):
    path, _ = tone(samples=44_100, channels=1, sample_rate_hz=44_100, subtype="FLOAT")
    result, _ = files.read(path, sample_rate_hz=RATE_HZ)
    expected = 0.5 * np.cos(2 * np.pi * 220 * np.arange(RATE_HZ) / RATE_HZ)
    np.testing.assert_allclose(result[800:-800, 0], expected[800:-800], atol=1e-4)


@pytest.mark.parametrize("block", [1, 7, 1000, 5000])
def test_resampled_blocks_have_the_length_asked_for(block):
    audio = np.random.default_rng(0).standard_normal((3001, 2)).astype(np.float32)
    parts = [audio[first : first + block] for first in range(0, len(audio), block)]
    for length in (2990, 3001, 6002, 6010):
        result = resampling.resample_blocks(
            parts, source_hz=16_000, target_hz=32_000, length_samples=length
        )
        joined = np.concatenate(list(result))
        assert joined.shape == (length, 2)
        whole = soxr.resample(audio, 16_000, 32_000)
        np.testing.assert_allclose(joined[:6002], whole[:length], atol=1e-6)
        assert not joined[6002:].any()


def test_stereo_where_mono_is_wanted_is_the_mean_and_mono_is_repeated(tone):
    path, audio = tone()
    np.testing.assert_allclose(files.read(path, channels=1)[0][:, 0], audio.mean(1), atol=1e-7)
    path, audio = tone(channels=1)
    np.testing.assert_array_equal(files.read(path, channels=2)[0], np.repeat(audio, 2, 1))
    with pytest.raises(ValueError, match="cannot make 2 channels from 3"):
        resampling.mix_channels(np.zeros((4, 3), np.float32), 2)


def test_missing_empty_folder_and_foreign_files_are_named(tmp_path):
    with pytest.raises(files.AudioFileError, match=r"nowhere\.wav: no such file"):
        files.inspect(tmp_path / "nowhere.wav")
    with pytest.raises(files.AudioFileError, match="is a folder"):
        files.inspect(tmp_path)
    (tmp_path / "empty.wav").touch()
    with pytest.raises(files.AudioFileError, match=r"empty\.wav: the file is empty"):
        files.inspect(tmp_path / "empty.wav")
    (tmp_path / "text.wav").write_text("this is a shopping list, not a sound\n" * 20)
    with pytest.raises(files.AudioFileError, match=r"text\.wav: not audio that can be decoded"):
        files.inspect(tmp_path / "text.wav")


def test_a_file_without_samples_is_refused(tmp_path):
    soundfile.write(tmp_path / "zero.wav", np.zeros((0, 1)), RATE_HZ)
    with pytest.raises(files.AudioFileError, match="no samples"):
        files.read(tmp_path / "zero.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff"])
@pytest.mark.parametrize("share", [0.5, 0.02])
def test_truncated_files_are_refused(tone, name, share):
    path = cut(tone(name, samples=60_000)[0], share)
    with pytest.raises(files.AudioFileError, match=name.replace(".", r"\.")) as caught:
        files.read(path)
    assert "truncated" in str(caught.value) or "cut off" in str(caught.value)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "noise.ogg", "a.mp3"])
def test_truncated_files_can_be_allowed_and_then_warn(tone, name):
    path, audio = tone(name, samples=60_000)
    with pytest.warns(files.AudioFileWarning, match="using what is there"):
        result, _ = files.read(cut(path, 0.5), allow_truncated=True)
    assert 10_000 < len(result) < 40_000
    checked = len(result) - 5_000  # lossy decoders may differ where the data stop
    np.testing.assert_allclose(result[:checked], audio[:checked], atol=1e-4)


def test_a_wav_written_into_a_pipe_is_not_called_truncated(tone):
    path, audio = tone()
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    np.testing.assert_array_equal(files.read(path)[0], audio)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path, value):
    audio = np.zeros((70_000, 2), np.float32)
    audio[66_000, 1] = value
    soundfile.write(tmp_path / "bad.wav", audio, RATE_HZ, subtype="FLOAT")
    with pytest.raises(
        files.AudioFileError, match=r"bad\.wav: sample 66000 \(4\.125 s\), channel 1"
    ):
        files.read(tmp_path / "bad.wav")


def test_silence_is_read_with_a_warning(tmp_path):
    soundfile.write(tmp_path / "still.wav", np.zeros((100, 1)), RATE_HZ)
    with pytest.warns(files.AudioFileWarning, match=r"still\.wav: every sample is zero"):
        audio, _ = files.read(tmp_path / "still.wav")
    assert audio.shape == (100, 1) and not audio.any()


@pytest.mark.parametrize(("subtype", "step"), [("FLOAT", 0.0), ("PCM_16", 0.5 / 32768)])
def test_written_files_read_back(tmp_path, subtype, step):
    audio = np.random.default_rng(0).uniform(-0.9, 0.9, (1000, 2)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = files.write_wav(
            tmp_path / "x.wav", audio, sample_rate_hz=RATE_HZ, subtype=subtype
        )
    np.testing.assert_allclose(files.read(tmp_path / "x.wav")[0], audio, atol=step + 1e-9)
    assert written.samples == 1000 and written.clipped_samples == 0
    assert written.peak == pytest.approx(np.abs(audio).max())
    assert list(tmp_path.iterdir()) == [tmp_path / "x.wav"]


def test_clipping_is_limited_counted_and_said(tmp_path):
    audio = np.array([[0.5], [1.5], [-1.25], [1.0]], np.float32)
    with pytest.warns(files.AudioFileWarning, match=r"2 samples beyond full scale .*\+3\.5 dB"):
        written = files.write_wav(tmp_path / "x.wav", audio, sample_rate_hz=RATE_HZ)
    assert written.clipped_samples == 2
    stored = soundfile.read(tmp_path / "x.wav", dtype="int16")[0]
    assert stored.tolist() == [16384, 32767, -32768, 32767]
    files.write_wav(tmp_path / "f.wav", audio, sample_rate_hz=RATE_HZ, subtype="FLOAT")
    np.testing.assert_array_equal(files.read(tmp_path / "f.wav")[0], audio)


def test_an_interrupted_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.wav"
    files.write_wav(path, np.full((10, 1), 0.25, np.float32), sample_rate_hz=RATE_HZ)
    before = path.read_bytes()
    with (
        pytest.raises(RuntimeError, match="stop"),
        files.WavWriter(path, sample_rate_hz=RATE_HZ, channels=1) as writer,
    ):
        writer.write(np.zeros((10, 1), np.float32))
        raise RuntimeError("stop")
    with (
        pytest.raises(ValueError, match="NaN"),
        files.WavWriter(path, sample_rate_hz=RATE_HZ, channels=1) as writer,
    ):
        writer.write(np.full((10, 1), np.nan, np.float32))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


FILL_THE_DISK = """
import resource, sys
import numpy as np
from majl_jax.audio import files
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    files.write_wav(sys.argv[1], np.zeros((400_000, 1), np.float32), sample_rate_hz=16_000)
except OSError as error:
    print(error)
    sys.exit(7)
"""


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path):
    path = tmp_path / "x.wav"
    path.write_text("the old file")
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 7, done.stderr
    assert "could not write" in done.stdout and "x.wav: File too large" in done.stdout
    assert ".part" not in done.stdout
    assert path.read_text() == "the old file" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["../../etc/passwd", "..", "", "a/b\\c", ".hidden", "x" * 400, "nul\0", "Ünïcode - ok"]
)
def test_safe_names_stay_inside_their_folder(tmp_path, text):
    name = files.safe_name(text)
    assert name and len(name.encode()) <= 100
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    (tmp_path / name).touch()
