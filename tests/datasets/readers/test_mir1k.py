"""MIR-1K: a made-up copy with its label clock, what is wrong with files, and the real clips."""

import collections
import pathlib
import tarfile

import numpy as np
import pytest
import soundfile
from made_copies.mir1k import SAMPLES, write_clip, write_labels
from places import RECORDINGS

from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, mir1k
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.track import BadTrack

REAL = RECORDINGS / "mir1k"
GRID = Grid(16000, 320)
LABELS = (SAMPLES - 640) // 320 + 1


def load_only(folder: pathlib.Path):
    (one,) = mir1k.tracks(str(folder), grid=GRID)
    recording = one.load()
    track.check(recording)
    return recording


def test_channels_and_the_label_clock(tmp_path):
    write_clip(tmp_path, "amy_1_01")
    write_labels(tmp_path, "amy_1_01", [0.0, 57.0, 69.0, *[0.0] * (LABELS - 3)])
    recording = load_only(tmp_path)
    assert recording.stems == ("accompaniment", "voice") and recording.has_stems.all()
    assert np.abs(recording.audio[:, 1]).max() == pytest.approx(0.4, abs=1e-3)
    assert np.abs(recording.audio[:, 0]).max() < 0.11
    # Lines 0, 1, 2 are centred at 20, 40, 60 ms: frames 1, 2, 3.
    np.testing.assert_allclose(recording.f0_hz[:5, 1], [0, 0, 220, 440, 0], rtol=1e-6)
    assert recording.has_pitch[:, 1].tolist() == [False, *[True] * 49]
    assert not recording.has_pitch[:, 0].any()


def test_the_golden_length_of_a_clip():
    assert (181248 - mir1k.LABEL_WINDOW_SAMPLES) // mir1k.LABEL_HOP_SAMPLES + 1 == 565


def test_the_split_is_by_singer(tmp_path):
    rows = read_split(mir1k.SPLIT_LISTS["singer"])
    assert len(rows) == len({row[0] for row in rows}) == 19
    for singer in ("amy", "jmzen", "khair", "somebody"):
        write_clip(tmp_path, f"{singer}_1_01")
        write_clip(tmp_path, f"{singer}_2_01")
    found = {(one.group, one.split) for one in mir1k.tracks(str(tmp_path), grid=GRID)}
    expected = {("amy", "train"), ("jmzen", "valid"), ("khair", "test"), ("somebody", "train")}
    assert found == expected


def test_the_lists_by_song_and_by_clip_name_the_whole_set():
    songs = dict(read_split(mir1k.SPLIT_LISTS["song"]))
    clips = dict(read_split(mir1k.SPLIT_LISTS["clip"]))
    assert len(songs) == 110 and len(clips) == 1000
    assert {clip.rsplit("_", 1)[0] for clip in clips} == set(songs)
    assert collections.Counter(clips.values()) == {"train": 760, "valid": 40, "test": 200}
    of_song = collections.Counter(songs[clip.rsplit("_", 1)[0]] for clip in clips)
    assert of_song == {"train": 690, "valid": 109, "test": 201}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mir1k_songs", {"train": ["abjones_2_01"], "test": ["abjones_3_01", "abjones_3_02"]}),
        ("mir1k_author", {"train": ["abjones_2_01", "abjones_3_01"], "test": ["abjones_3_02"]}),
    ],
)
def test_the_split_by_song_and_by_clip(tmp_path, name, expected):
    for clip in ("abjones_2_01", "abjones_3_01", "abjones_3_02"):
        write_clip(tmp_path, clip)
    found = collections.defaultdict(list)
    for one in READERS[name].tracks(str(tmp_path), grid=GRID):
        found[one.split].append(one.id)
    assert found == expected


def test_the_views_share_no_singer_and_take_labels_away(tmp_path):
    singers = {row[0]: row[1:] for row in read_split(mir1k.SPLIT_LISTS["singer"])}
    for singer in singers:
        write_clip(tmp_path, f"{singer}_1_01")
    found = {
        view: READERS[f"mir1k_{view}"].tracks(str(tmp_path), grid=GRID)
        for view in ("few", "stems", "pitch")
    }
    in_views = [one.group for tracks in found.values() for one in tracks]
    assert sorted(in_views) == sorted(singers), "each singer in one view"
    assert [len([t for t in one if t.split == "train"]) for one in found.values()] == [3, 5, 5]
    assert {t.split for view in ("stems", "pitch") for t in found[view]} == {"train"}
    full, stems, pitch = (found[view][0].load() for view in ("few", "stems", "pitch"))
    assert full.has_stems.all() and full.has_pitch[:, 1].any()
    assert stems.has_stems.all() and not stems.has_pitch.any()
    assert not pitch.has_stems.any() and pitch.has_pitch[:, 1].any()
    np.testing.assert_allclose(pitch.audio[:, 0], full.audio.sum(1), atol=1e-6)
    with pytest.raises(ValueError, match="view is 'stems' of the split by song"):
        mir1k.tracks(str(tmp_path), split_by="song", view="stems", grid=GRID)


def test_shares_of_the_training_clips_lie_inside_each_other_and_are_of_many_singers(tmp_path):
    for singer in ("amy", "bobon", "titon", "jmzen", "khair"):
        for number in range(10):
            write_clip(tmp_path, f"{singer}_{number}_01")
    found = {
        name: READERS[name].tracks(str(tmp_path), grid=GRID)
        for name in ("mir1k_3", "mir1k_12", "mir1k_50", "mir1k")
    }
    train = {k: {one.id for one in tracks if one.split == "train"} for k, tracks in found.items()}
    assert [len(one) for one in train.values()] == [1, 4, 15, 30]
    assert train["mir1k_3"] < train["mir1k_12"] < train["mir1k_50"] < train["mir1k"]
    singers = collections.Counter(clip.partition("_")[0] for clip in train["mir1k_12"])
    assert sorted(singers.values()) == [1, 1, 2]
    for percent in (3, 12, 50):
        rest = READERS[f"mir1k_rest_{percent}"].tracks(str(tmp_path), grid=GRID)
        left = {one.id for one in rest if one.split == "train"}
        assert left == train["mir1k"] - train[f"mir1k_{percent}"]
    for tracks in found.values():
        assert sum(one.split == "valid" for one in tracks) == 10
        assert sum(one.split == "test" for one in tracks) == 10


def test_mixtures_have_no_label(tmp_path):
    for singer in ("amy", "jmzen", "khair"):
        write_clip(tmp_path, f"{singer}_1_01")
    found = READERS["mir1k_mixtures"].tracks(str(tmp_path), grid=GRID)
    whole = READERS["mir1k"].tracks(str(tmp_path), grid=GRID)
    assert [one.split for one in found] == ["train", "valid", "test"]
    for one, other in zip(found, whole, strict=True):
        recording = one.load()
        track.check(recording)
        assert not recording.has_stems.any() and not recording.has_pitch.any()
        assert not recording.f0_hz.any()
        np.testing.assert_allclose(recording.audio[:, 0], other.load().audio.sum(1), atol=1e-6)


def test_lossy_clips_are_not_for_testing_and_a_lossless_copy_comes_first(tmp_path):
    valid = next(row[0] for row in read_split(mir1k.SPLIT_LISTS["singer"]) if row[1] == "valid")
    valid = f"{valid}_1_01"
    for clip in ("amy_1_01", valid, "khair_1_01", "khair_1_02"):
        write_clip(tmp_path, clip)
    for clip in ("amy_1_01", valid, "khair_1_01"):
        (tmp_path / "Wavfile" / f"{clip}.wav").rename(tmp_path / "Wavfile" / f"{clip}.MP3")
    (tmp_path / "Wavfile" / "khair_1_02.mp3").touch()
    found = {t.id: t for t in mir1k.tracks(str(tmp_path), grid=GRID)}
    assert found["khair_1_02"].paths[0].suffix == ".wav"
    assert found[valid].paths[0].suffix == ".MP3" and found[valid].split == "valid"
    left_out = {name: one.left_out for name, one in found.items() if one.left_out}
    assert left_out == {"khair_1_01": mir1k.NOT_SCORED}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([57.0] * (LABELS - 1), f"{LABELS - 1} labels, expected {LABELS}"),
        ([57.0] * (LABELS + 1), f"{LABELS + 1} labels, expected {LABELS}"),
        ([57.0, "high", *[57.0] * (LABELS - 2)], "line 2: 'high' is not a number"),
        ([57.0, "57 58", *[57.0] * (LABELS - 2)], "line 2: '57 58' is not a number"),
        ([*[57.0] * (LABELS - 1), -3.0], f"line {LABELS}: -3.0 is out of range"),
        ([*[57.0] * (LABELS - 1), 440.0], f"line {LABELS}: 440.0 is out of range"),
        ([*[57.0] * (LABELS - 1), "nan"], f"line {LABELS}: nan is out of range"),
        ([], f"0 labels, expected {LABELS}"),
    ],
)
def test_bad_labels_are_refused(tmp_path, labels, message):
    write_clip(tmp_path, "amy_1_01")
    write_labels(tmp_path, "amy_1_01", labels)
    with pytest.raises(BadTrack, match=message):
        load_only(tmp_path)


def test_missing_labels_are_refused(tmp_path):
    write_clip(tmp_path, "amy_1_01")
    (tmp_path / "PitchLabel" / "amy_1_01.pv").unlink()
    with pytest.raises(BadTrack, match=r"amy_1_01\.pv: no such label file"):
        load_only(tmp_path)


def test_other_rates_and_channels_are_refused(tmp_path):
    path = write_clip(tmp_path, "amy_1_01", samplerate=44100)
    with pytest.raises(BadTrack, match="2 channels at 44100 Hz, expected 2 at 16000 Hz"):
        load_only(tmp_path)
    soundfile.write(path, np.zeros(16000), 16000)
    with pytest.raises(BadTrack, match="1 channels at 16000 Hz"):
        load_only(tmp_path)
    with pytest.raises(ValueError, match="--sample_rate_hz=16000"):
        mir1k.tracks(str(tmp_path), grid=Grid(8000, 160))


def test_a_folder_that_is_no_copy_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected Wavfile/"):
        mir1k.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing: the folder of MIR-1K"):
        mir1k.tracks(None, grid=GRID)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips (../shared/audio/mir1k) are not here")
def test_real_clips_sound_as_labelled(tmp_path):
    with tarfile.open(REAL / "labels.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    labels = next(tmp_path.rglob("PitchLabel"))
    copy = tmp_path / "copy"
    (copy / "Wavfile").mkdir(parents=True)
    (copy / "PitchLabel").symlink_to(labels)
    clips = [*sorted((REAL / "flac_subset").glob("*.flac"))[::8]]
    clips += sorted((REAL / "mp3_train").glob("*.mp3"))[::200]
    for clip in clips:
        (copy / "Wavfile" / clip.name).symlink_to(clip)
    agreement = {shift: [] for shift in (-1, 0, 1)}
    for one in mir1k.tracks(str(copy), grid=GRID):
        recording = one.load()
        track.check(recording)
        for shift, shares in agreement.items():
            shares.append(share_in_tune(recording, shift))
    means = {shift: np.mean(shares) for shift, shares in agreement.items()}
    assert len(agreement[0]) == len(clips) >= 5
    assert means[0] > 0.9 and max(means[-1], means[1]) < means[0] - 0.03, means


def share_in_tune(recording: track.Recording, shift: int) -> float:
    """Of the voiced frames, how many have their period (labels moved by `shift` frames)."""
    voice, f0_hz = recording.audio[:, 1, 0], np.roll(recording.f0_hz[:, 1], shift)
    hits = []
    for frame in np.flatnonzero(f0_hz[4:-4])[::3] + 4:
        window = voice[frame * 320 - 512 : frame * 320 + 512]
        spectrum = np.abs(np.fft.rfft(window * np.hanning(1024), 8192)) ** 2
        autocorrelation = np.fft.irfft(spectrum)
        low = int(16000 / f0_hz[frame] / 1.5)
        lags = np.arange(low, int(16000 / f0_hz[frame] * 1.5) + 1)
        lag = lags[np.argmax(autocorrelation[lags])]
        hits.append(abs(1200 * np.log2(16000 / lag / f0_hz[frame])) < 50)
    return float(np.mean(hits))
