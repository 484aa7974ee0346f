"""Audio files are read to their real end, whatever their headers say, or refused by name."""

import warnings

import made_audio
import numpy as np
import pytest
import soundfile
from made_audio import RATE_HZ, make

from majl_jax.audio import containers, files, libav

SAMPLES = 3 * RATE_HZ

needs_av = pytest.mark.skipif(not libav.is_installed(), reason="PyAV is not installed")


@pytest.fixture(autouse=True)
def no_reservations():
    """A file that is read is read without a warning, but where a test expects one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", files.AudioFileWarning)
        yield


def close_to(audio: np.ndarray) -> None:
    """The encoded sound is in it from beginning to end, to what a lossy encoder leaves of it."""
    expected = made_audio.sound()
    likeness = []
    for delay in range(0, max(1, len(audio) - len(expected) + 1200)):
        given = audio[delay : delay + len(expected), 0]
        likeness.append(np.corrcoef(expected[: len(given)], given)[0, 1])
    assert max(likeness) > 0.95, max(likeness)


CASES = {
    "vbr_without_xing_30s.mp3": (30.0, 0.1),
    "chained_ogg_24s.ogg": (24.0, 0.0),
    "flac_from_a_pipe_12s.flac": (12.0, 0.0),
    "sox_through_a_pipe.wav": (3.0, 0.0),
    "header_says_0_bytes.wav": (3.0, 0.0),
    "flac_in_ogg_12s.oga": (12.0, 0.0),
    "mp3_in_wav_4s.wav": (4.0, 0.1),
}


@needs_av
@pytest.mark.parametrize("name", CASES)
def test_the_cases_that_users_reported(name):
    path, (seconds, slack_s) = made_audio.CASES / name, CASES[name]
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    audio, rate_hz = files.read(path)
    assert abs(len(audio) / rate_hz - seconds) <= slack_s
    assert abs(files.inspect(path).seconds - seconds) <= slack_s


@needs_av
def test_an_mp3_of_varying_rate_without_a_count_of_frames(tmp_path):
    path = make(tmp_path, "vbr.mp3")
    assert soundfile.info(path).frames < 0.7 * SAMPLES, "the trap: libsndfile takes the first rate"
    audio, _ = files.read(path)
    assert 0 <= len(audio) - SAMPLES <= 2 * 1152 and len(audio) == made_audio.ffmpeg_samples(path)
    assert files.inspect(path).samples == len(audio)
    close_to(audio)


@needs_av
def test_joined_mp3s_are_read_to_the_last(tmp_path):
    path = make(tmp_path, "a.mp3")
    one, _ = files.read(path)
    made_audio.add(path, made_audio.ID3V1 + path.read_bytes())
    audio, _ = files.read(path)
    assert len(audio) == made_audio.ffmpeg_samples(path) > 2 * SAMPLES - 1152
    np.testing.assert_allclose(audio[: len(one) - 2000], one[:-2000], atol=1e-3)
    close_to(audio[-SAMPLES - 1152 :])


@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.flac", "a.wav", "a.aiff", "a.au", "a.w64"])
def test_joined_files_are_read_one_after_the_other(tmp_path, name):
    path = make(tmp_path, name)
    one, _ = files.read(path)
    made_audio.add(path, path.read_bytes())
    audio, _ = files.read(path)
    assert len(one) == SAMPLES and len(audio) == 2 * SAMPLES == files.inspect(path).samples
    np.testing.assert_array_equal(audio, np.concatenate([one, one]))


@pytest.mark.parametrize("samples", range(SAMPLES, SAMPLES + 8))
def test_a_w64_file_need_not_be_padded(tmp_path, samples):
    path, audio = tmp_path / "a.w64", made_audio.sound()[:1].repeat(samples)
    soundfile.write(path, audio, RATE_HZ, subtype="PCM_16")
    assert len(files.read(path)[0]) == samples == files.inspect(path).samples
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(files.AudioFileError, match=r"of the \d+ bytes its header announces"):
        files.read(path)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_joined_files_of_several_rates_are_refused(tmp_path, name):
    path, other = make(tmp_path, name), tmp_path / f"other_{name}"
    soundfile.write(other, made_audio.sound(1.0), 22_050)
    made_audio.add(path, other.read_bytes())
    with pytest.raises(
        files.AudioFileError, match=rf"{name}: holds 2 joined files of several rates"
    ):
        files.inspect(path)


def test_an_mp3_that_changes_its_rate_is_refused(tmp_path):
    path, other = make(tmp_path, "a.mp3"), tmp_path / "other.mp3"
    soundfile.write(other, made_audio.sound(1.0), 44_100)
    made_audio.add(path, other.read_bytes())
    with pytest.raises(
        files.AudioFileError, match=r"from byte \d+ on it is 44100 Hz in one channel"
    ):
        files.read(path)


@pytest.mark.parametrize("lost", [1, 100, 1000])
def test_a_last_ogg_page_that_is_cut_is_noticed(tmp_path, lost):
    path = make(tmp_path, "a.ogg")
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(
        files.AudioFileError, match=r"a\.ogg: the last Ogg page, at byte \d+, is cut"
    ):
        files.read(path)
    with pytest.warns(files.AudioFileWarning, match="is cut; using what is there"):
        assert len(files.read(path, allow_truncated=True)[0]) > 0


def test_damaged_and_missing_ogg_pages_are_named(tmp_path):
    path = make(tmp_path, "a.ogg", seconds=12)
    data = path.read_bytes()
    starts = [n for n in range(len(data)) if data[n : n + 4] == b"OggS"]
    assert len(starts) >= 5
    at = starts[3]
    path.write_bytes(data[: at + 100] + bytes([data[at + 100] ^ 1]) + data[at + 101 :])
    with pytest.raises(files.AudioFileError, match=f"the Ogg page at byte {at} is damaged"):
        files.read(path)
    path.write_bytes(data[:at] + data[starts[4] :])
    with pytest.raises(files.AudioFileError, match=f"pages are missing before byte {at}"):
        files.read(path)


@pytest.mark.parametrize("tag", [b"", made_audio.ID3V1])
def test_flac_of_unknown_length(tmp_path, tag):
    path = make(tmp_path, "a.flac")
    expected, _ = files.read(path)
    made_audio.add(made_audio.unknown_length(path), tag)
    assert files.inspect(path).samples == SAMPLES
    np.testing.assert_array_equal(files.read(path)[0], expected)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(files.AudioFileError, match=r"are no whole FLAC frame: the file is trunc"):
        files.inspect(path)
    with pytest.warns(files.AudioFileWarning, match="using what is there"):
        assert 0.3 * SAMPLES < len(files.read(path, allow_truncated=True)[0]) < SAMPLES


def test_flac_with_a_tag_at_its_end(tmp_path):
    path = make(tmp_path, "a.flac")
    expected, _ = files.read(path)
    made_audio.add(path, made_audio.ID3V1)
    np.testing.assert_array_equal(files.read(path)[0], expected)


def test_flac_whose_header_says_too_little_is_read_on(tmp_path):
    path = make(tmp_path, "a.flac")
    expected, _ = files.read(path)
    data = bytearray(path.read_bytes())
    data[22:26] = (5000).to_bytes(4, "big")
    path.write_bytes(data)
    np.testing.assert_array_equal(files.read(path)[0], expected)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFEFFE, 0x7FFFFFDB, 0xFFFFFFFF])
def test_wav_written_into_a_pipe(tmp_path, size):
    path = make(tmp_path, "a.wav")
    expected, _ = files.read(path)
    made_audio.data_size(path, size)
    assert files.inspect(path).samples == SAMPLES
    np.testing.assert_array_equal(files.read(path)[0], expected)


def test_a_wav_of_three_gigabytes_that_is_cut_is_no_pipe(tmp_path):
    path = made_audio.data_size(make(tmp_path, "a.wav"), 3_000_000_000)
    with pytest.raises(files.AudioFileError, match="holds 96000 of the 3000000000 bytes"):
        files.read(path)


def test_bytes_that_remain_are_told(tmp_path):
    for name, told in {
        "a.wav": "are in no chunk",
        "a.ogg": "are no Ogg pages",
        "a.au": "beyond",
    }.items():
        path = made_audio.add(make(tmp_path, name), b"what is this?" * 20)
        with pytest.warns(
            files.AudioFileWarning, match=rf"{name}: 260 bytes from byte \d+ on .*{told}"
        ):
            assert len(files.read(path)[0]) == SAMPLES
        files.inspect(path)  # told once, where it is read
    path = made_audio.add(make(tmp_path, "a.flac"), b"what is this?" * 20)
    with pytest.warns(files.AudioFileWarning, match="260 bytes .* are no whole FLAC frame"):
        assert len(files.read(path)[0]) == SAMPLES
    path = make(tmp_path, "b.wav")
    chunk = b"data" + (8).to_bytes(4, "little") + bytes(8)
    with pytest.raises(files.AudioFileError, match=r"b\.wav: holds a second chunk of samples"):
        files.read(made_audio.add(path, chunk))


@needs_av
@pytest.mark.parametrize(
    "name",
    ["a.m4a", "a.mp4", "a.mka", "a.aac", "alac.m4a", "a.webm", "flac_in.oga", "32_bits.flac"],
)
def test_what_ffmpeg_reads(tmp_path, name):
    path = make(tmp_path, name)
    audio, rate_hz = files.read(path)
    frame = {"a.webm": 960}.get(name, 1024)
    assert abs(len(audio) - made_audio.ffmpeg_samples(path)) < frame
    assert 0 <= len(audio) / rate_hz - 3.0 < 0.1
    assert abs(files.inspect(path).samples - len(audio)) <= libav.SLACK_S * rate_hz
    if rate_hz == RATE_HZ:
        close_to(audio)
    blocks = list(files.stream(path, block_samples=700))
    assert max(map(len, blocks)) <= 700
    np.testing.assert_array_equal(np.concatenate(blocks), audio)


@needs_av
@pytest.mark.parametrize("name", ["a.m4a", "a.mka", "a.webm", "alac.m4a", "flac_in.oga"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.97])
def test_what_ffmpeg_reads_is_refused_where_it_is_cut(tmp_path, name, share):
    path = make(tmp_path, name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(files.AudioFileError, match=rf"{name}: .*(truncated|cut off)"):
        files.read(path)


@needs_av
def test_joined_mp4s_are_refused_and_joined_matroska_is_read(tmp_path):
    path = make(tmp_path, "a.m4a")
    made_audio.add(path, path.read_bytes())
    with pytest.raises(files.AudioFileError, match=r"a\.m4a: another MP4 file begins at byte"):
        files.read(path)
    path = make(tmp_path, "a.mka")
    made_audio.add(path, path.read_bytes())
    assert len(files.read(path)[0]) == made_audio.ffmpeg_samples(path) > 2 * SAMPLES


@needs_av
@pytest.mark.parametrize("name", ["a.m4a", "vbr.mp3", "flac_in.oga", "32_bits.flac"])
def test_without_pyav_it_is_said_how_to_install_it(tmp_path, name, monkeypatch):
    path = make(tmp_path, name)
    monkeypatch.setattr(libav, "is_installed", lambda: False)
    with pytest.raises(files.AudioFileError, match=rf"{name}: .*PyAV, .* pip install av"):
        files.read(path)


@needs_av
def test_mp3_in_wav(tmp_path):
    path = make(tmp_path, "mp3_in.wav")
    audio, _ = files.read(path)
    assert len(audio) == made_audio.ffmpeg_samples(path)


def test_a_play_list_is_not_followed(tmp_path):
    make(tmp_path, "a.wav")
    for name, text in {
        "a.m3u8": "#EXTM3U\n#EXTINF:3,\na.wav\n#EXT-X-ENDLIST\n",
        "b.mp4": "ffconcat version 1.0\nfile a.wav\n",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(files.AudioFileError, match=f"{name}: not audio that can be decoded"):
            files.read(tmp_path / name)


def test_a_rate_that_no_recording_has_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", made_audio.sound(0.1), 3)
    with pytest.raises(
        files.AudioFileError, match=r"a\.wav: its header says 3 Hz, expected 1000 to"
    ):
        files.inspect(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.opus"])
def test_sound_files_are_one_whole_part(tmp_path, name):
    path = make(tmp_path, name)
    found = containers.look(path)
    assert found.parts == (containers.Part(0, path.stat().st_size),)
    assert (found.truncated, found.damaged, found.remarks) == ("", "", ())
    assert not found.beyond_libsndfile


def test_what_libsndfile_reads_whole_is_read_as_before(tmp_path):
    class ForwardOnly(soundfile.SoundFile):
        def seekable(self):
            return False

    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.opus"):
        with ForwardOnly(make(tmp_path, name)) as file:
            expected = file.read(2 * SAMPLES, dtype="float32", always_2d=True)
        np.testing.assert_array_equal(files.read(tmp_path / name)[0], expected)


@needs_av
def test_a_tag_that_is_not_utf8_is_no_reason_to_refuse(tmp_path):
    path = make(tmp_path, "a.mka")
    expected, _ = files.read(path)
    data = path.read_bytes()
    assert b"Lavf" in data  # the name of the program that wrote it
    path.write_bytes(data.replace(b"Lavf", b"L\xe9vf"))
    np.testing.assert_array_equal(files.read(path)[0], expected)
