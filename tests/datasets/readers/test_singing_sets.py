"""iKala and vocadito: made-up copies in the layout of each, their label clocks, splits, what is
wrong with files, and real singing.
"""

import dataclasses
import functools
import pathlib
import pickle

import numpy as np
import pytest
import soundfile
from made_copies.singing_sets import (
    FILE_RATE,
    GRID_S,
    ROWS,
    SECONDS,
    SINGERS,
    sung,
    write_clip,
    write_lines,
    write_voice,
)
from places import RECORDINGS

from majl_jax.datasets import records, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, ikala, vocadito
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

REAL = RECORDINGS / "mirdata_fixtures/vocadito"
GRID = Grid(16000, 160)


WRITE = {"ikala_songs": write_clip, "vocadito": write_voice}


def load_only(name: str, root: pathlib.Path, **options) -> track.Recording:
    (one,) = READERS[name].tracks(str(root), grid=dataclasses.replace(GRID, **options))
    assert not one.left_out and all(path.is_file() for path in one.paths)
    recording = pickle.loads(pickle.dumps(one)).load()
    track.check(recording)
    return recording


def heard_hz(voice: np.ndarray, rate: int, centre: int, near_hz: float) -> float:
    """The pitch in 50 ms around a sample, within a fourth of `near_hz`: the peak of the
    autocorrelation.
    """
    half = round(0.025 * rate)
    taper = np.hanning(2 * half)
    of_sound, of_taper = (
        np.fft.irfft(np.abs(np.fft.rfft(window, 8 * half)) ** 2)
        for window in (voice[centre - half : centre + half] * taper, taper)
    )
    first = int(rate / near_hz / 1.25)
    here = slice(first, int(rate / near_hz * 1.25) + 2)
    alike = of_sound[here] / of_taper[here]
    best = 1 + int(np.argmax(alike[1:-1]))
    left, middle, right = alike[best - 1 : best + 2]
    return rate / (first + best + 0.5 * (left - right) / (left - 2 * middle + right))


def cents_off(recording: track.Recording, shifts: range) -> dict[int, np.ndarray]:
    """By how much labels that are moved by so many frames differ from the pitch heard, in frames
    that stay voiced.
    """
    labels, rate = recording.f0_hz[:, -1], recording.grid.sample_rate_hz
    voice, reach = recording.audio[:, -1, 0], max(abs(shift) for shift in shifts) + 5
    inside = np.flatnonzero(
        [
            k >= reach and (labels[k - reach : k + reach + 1] > 0).all() and k + reach < len(labels)
            for k in range(len(labels))
        ]
    )[::2]
    heard = [heard_hz(voice, rate, k * recording.grid.hop_samples, labels[k]) for k in inside]
    return {s: np.abs(1200 * np.log2(np.array(heard) / labels[inside + s])) for s in shifts}


def test_ikala_is_two_stems_that_sum_to_the_mixture(tmp_path):
    write_clip(tmp_path)
    recording = load_only("ikala_songs", tmp_path)
    assert recording.stems == ("accompaniment", "voice") == READERS["ikala"].stems
    assert recording.audio.shape == (48000, 2, 1) and recording.has_stems.all()
    assert recording.audio[41600:, 0].std() > 0.03, "the left channel, noise to the end"
    assert np.abs(recording.audio[41600:, 1]).max() < 1e-3, "the right channel, silent at the end"
    assert np.abs(recording.audio[:40000, 1]).max() == pytest.approx(np.abs(sung()).max(), abs=0.02)
    assert not recording.has_pitch[:, 0].any() and not recording.f0_hz[:, 0].any()


def test_vocadito_is_one_voice_and_nothing_else(tmp_path):
    write_voice(tmp_path)
    recording = load_only("vocadito", tmp_path)
    assert recording.stems == ("voice",) == READERS["vocadito"].stems and recording.voices == 0
    assert recording.audio.shape == (48000, 1, 1) and recording.has_stems.tolist() == [True]
    assert recording.f0_hz.shape == (300, 1) and recording.has_pitch.all()
    assert not recording.f0_hz[251:].any() and recording.f0_hz[:250].all()


def test_ikala_labels_are_centred_at_16_ms_and_every_32(tmp_path):
    labels = write_clip(tmp_path)
    write_lines(labels, [57.0, 0.0, 69.0, *[60.0] * (ROWS - 3)])
    recording = load_only("ikala_songs", tmp_path, hop_samples=16)  # a frame a millisecond
    f0_hz, times_s = recording.f0_hz[:200, 1], np.arange(200) / 1000
    centres = [times_s[np.isclose(f0_hz, hz)].mean() for hz in (220.0, 0.0, 440.0)]
    np.testing.assert_allclose(centres, [0.016, 0.048, 0.080], atol=0.0006)
    known = recording.has_pitch[:, 1]
    assert known[: ROWS * 32].all() and not known[ROWS * 32 :].any(), "2.976 s of 3 are labelled"


def test_vocadito_labels_are_a_hop_of_256_samples_apart_from_0_on(tmp_path):
    labels = write_voice(tmp_path)
    rows = [f"{k * GRID_S},{100 + k}" for k in range(int(SECONDS / GRID_S) + 1)]
    write_lines(labels, rows)
    recording = load_only("vocadito", tmp_path, sample_rate_hz=44100, hop_samples=16)
    f0_hz, times_s = recording.f0_hz[:, 0], np.arange(len(recording.f0_hz)) * 16 / 44100
    centres = [times_s[f0_hz == 100 + k].mean() for k in (1, 2, 3)]
    np.testing.assert_allclose(centres, [0.005805, 0.011610, 0.017415], atol=2e-4)
    known = recording.has_pitch[:, 0]
    assert f0_hz[0] == 100 and known[: 516 * 16].all(), "as far as its last row, 516, reaches"
    assert not known[517 * 16 :].any()


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize(("rate_hz", "hop"), [(16000, 80), (22050, 128)])
def test_labels_agree_best_with_the_sound_where_they_are(tmp_path, name, rate_hz, hop):
    WRITE[name](tmp_path)
    recording = load_only(name, tmp_path, sample_rate_hz=rate_hz, hop_samples=hop)
    off = {s: errors.mean() for s, errors in cents_off(recording, range(-6, 7)).items()}
    assert min(off, key=off.__getitem__) == 0 and off[0] < 25, off
    assert min(off[-6], off[6]) > 2 * off[0], "the voice glides: 6 frames are about 50 cents"


def test_ikala_keeps_singers_apart_by_the_mapping(tmp_path):
    for name in ("10161_chorus", "10161_verse", "21025_verse", "31083_verse", "99999_verse"):
        write_clip(tmp_path, name)
    (tmp_path / "id_mapping.txt").write_text(SINGERS)
    found = {one.id: one for one in READERS["ikala"].tracks(str(tmp_path), grid=GRID)}
    assert found["10161_verse"].group == found["21025_verse"].group == "1"
    assert len({found[name].split for name in found if found[name].group == "1"}) == 1
    assert {name: one.left_out for name, one in found.items() if one.left_out} == {
        "99999_verse": ikala.NO_SINGER
    }


def test_each_singer_of_ikala_is_in_one_split_and_each_split_has_one(tmp_path):
    rows = [line.split() for line in SINGERS.splitlines()[1:]]
    for _, song in rows:
        write_clip(tmp_path, f"{song}_verse")
    (tmp_path / "id_mapping.txt").write_text(SINGERS)
    list_tracks = functools.partial(READERS["ikala"].tracks, str(tmp_path), grid=GRID)
    for seed in (0, 1):
        pairs = {(one.group, one.split) for one in list_tracks(seed=seed)}
        counts = {split: sum(s == split for _, s in pairs) for split in ("train", "valid", "test")}
        assert len(pairs) == 6 and counts == {"train": 4, "valid": 1, "test": 1}
    (tmp_path / "Wavfile/66556_verse.wav").unlink()
    before = {one.id: one.split for one in list_tracks()}
    write_clip(tmp_path, "66556_verse")
    assert before.items() <= {one.id: one.split for one in list_tracks()}.items(), (
        "the split of a singer does not depend on which clips are there"
    )


def test_ikala_songs_keeps_verse_and_chorus_together_and_needs_no_mapping(tmp_path):
    rows = read_split(ikala.SPLIT_LIST)
    splits = dict(rows)
    assert len(rows) == len(splits) == 177
    assert {name: [*splits.values()].count(name) for name in ("train", "valid", "test")} == {
        "train": 127,
        "valid": 15,
        "test": 35,
    }
    song = next(song for song, split in rows if split == "test")
    for name in (f"{song}_verse", f"{song}_chorus", "99999_verse"):
        write_clip(tmp_path, name)
    found = READERS["ikala_songs"].tracks(str(tmp_path), grid=GRID)
    assert [(one.group, one.split) for one in found] == [
        *[(song, "test")] * 2,
        ("99999", "train"),
    ]


def test_a_clip_that_is_there_twice_is_read_once(tmp_path):
    write_clip(tmp_path, suffix=".flac")
    assert load_only("ikala_songs", tmp_path).audio.shape == (48000, 2, 1)
    write_clip(tmp_path)
    (tmp_path / "Wavfile/._10161_verse.wav").touch()
    (one,) = READERS["ikala_songs"].tracks(str(tmp_path), grid=GRID)
    assert one.paths[0].name == "10161_verse.wav"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"id_mapping\.txt is missing: .* prepare the data set `ikala_songs`"),
        ("singer\tsongid\n", "no lines of singer and song"),
        ("1\t10161\n1 2 3\n", "line 2: '1 2 3'; expected singer and song"),
        ("1\t10161\n2\t10161\n", "line 2: .* each song once"),
    ],
)
def test_singers_that_cannot_be_told_apart(tmp_path, text, message):
    write_clip(tmp_path)
    if text is not None:
        (tmp_path / "id_mapping.txt").write_text(text)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        READERS["ikala"].tracks(str(tmp_path), grid=GRID)


def test_a_mono_clip_of_ikala_is_refused(tmp_path):
    write_clip(tmp_path)
    soundfile.write(tmp_path / "Wavfile/10161_verse.wav", sung(), FILE_RATE)
    with pytest.raises(BadTrack, match=r"10161_verse\.wav: 1 channels, expected 2 \(left accomp"):
        load_only("ikala_songs", tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([57.0] * (ROWS - 5), r"88 labels of 32 ms are 2\.82 s, its audio is 3\.00 s"),
        ([57.0] * (ROWS + 5), r"98 labels of 32 ms are 3\.14 s, its audio is 3\.00 s"),
        ([], "0 labels of 32 ms"),
        ([57.0, "high"], "line 2: 'high' is not a number"),
        ([57.0, "57 58"], "line 2: '57 58' is not a number"),
        ([57.0, 440.0], "line 2: 440.0 is out of range"),
        ([57.0, "nan"], "line 2: nan is out of range"),
    ],
)
def test_bad_labels_of_ikala_are_named(tmp_path, values, message):
    write_lines(write_clip(tmp_path), values)
    with pytest.raises(BadTrack, match=rf"10161_verse\.pv.*{message}"):
        load_only("ikala_songs", tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["0.0,220.0", "1.5,220.0"], r"ends at 1\.5 s, its audio at 3\.0 s"),
        (["0.0,220.0", "33.2,220.0"], r"ends at 33\.2 s, its audio at 3\.0 s"),
        (["0.0,220.0", "2.9"], "line 2: '2.9'; expected time_s,f0_hz"),
        (["0.0,220.0", "2.9,high"], "line 2: '2.9,high'"),
        (["2.9,220.0", "0.0,220.0"], "line 2: its time 0.0 s is not after"),
        ([], "has no lines"),
    ],
)
def test_bad_labels_of_vocadito_are_named(tmp_path, lines, message):
    write_lines(write_voice(tmp_path), lines)
    with pytest.raises(BadTrack, match=rf"vocadito_1_f0\.csv.*{message}"):
        load_only("vocadito", tmp_path)


def test_what_vocadito_does_not_annotate_has_no_label(tmp_path):
    write_voice(tmp_path, rows=400)  # 2.32 s
    known = load_only("vocadito", tmp_path).has_pitch[:, 0]
    assert known[:232].all() and not known[233:].any()


@pytest.mark.parametrize("name", WRITE)
def test_missing_labels_and_audio_that_is_cut_off_are_named(tmp_path, name):
    labels = WRITE[name](tmp_path)
    (one,) = READERS[name].tracks(str(tmp_path), grid=GRID)
    labels.rename(tmp_path / "labels")
    with pytest.raises(BadTrack, match=rf"{labels.name}: no such label file"):
        one.load()
    (tmp_path / "labels").rename(labels)
    content = one.paths[0].read_bytes()
    one.paths[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"{one.paths[0].name}: holds .* truncated"):
        one.load()


@pytest.mark.parametrize("name", WRITE)
def test_a_folder_that_is_no_copy_is_refused(tmp_path, name):
    for source in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"is no copy of .*: expected .*wav"):
            READERS[name].tracks(str(source), grid=GRID)
    with pytest.raises(ValueError, match="--source is missing: the folder of"):
        READERS[name].tracks(None, grid=GRID)
    with pytest.raises(ValueError, match="split_by is 'clip'"):
        ikala.tracks(str(tmp_path), split_by="clip", grid=GRID)


def test_recordings_of_vocadito_are_all_test_in_order_with_their_singers(tmp_path):
    for number in (10, 2, 1):
        write_voice(tmp_path, number)
    found = vocadito.tracks(str(tmp_path), grid=GRID)
    assert [one.group for one in found] == ["vocadito_1", "vocadito_2", "vocadito_10"]
    (tmp_path / "vocadito_metadata.csv").write_text(
        "track_id,singer_id,average_pitch,language\n1,S1,50,Tagalog\n2,S2,65,Spanish\n10,S1,49,English\n"
    )
    found = vocadito.tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split, one.group) for one in found] == [
        ("vocadito_1", "test", "S1"),
        ("vocadito_2", "test", "S2"),
        ("vocadito_10", "test", "S1"),
    ]
    assert found[0].seconds == pytest.approx(SECONDS)


def test_prepared_the_bad_clip_is_skipped_and_the_labels_are_kept(tmp_path, capsys):
    copy = tmp_path / "copy"
    write_clip(copy, "10161_verse")
    write_lines(write_clip(copy, "10170_verse"), [57.0])
    flags = ["--file_format=array_record", "--processes=1", "--max_bad_fraction=0.5"]
    where = [f"--source={copy}", f"--output={tmp_path / 'out'}"]
    assert prepare.main(["--dataset=ikala_songs", *where, *flags]) == 0
    assert "skipped 10170_verse: " in (text := capsys.readouterr().out) and "1 labels" in text
    (one,) = records.read_tracks(tmp_path / "out/ikala_songs", "train")
    expected = load_only_of(copy, "10161_verse", hop_samples=320)
    np.testing.assert_array_equal(one["f0_hz"], expected.f0_hz)
    np.testing.assert_array_equal(one["has_pitch"], expected.has_pitch)


def load_only_of(root: pathlib.Path, name: str, **options) -> track.Recording:
    found = READERS["ikala_songs"].tracks(str(root), grid=dataclasses.replace(GRID, **options))
    return next(one for one in found if one.id == name).load()


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/audio/mirdata_fixtures is not here")
def test_real_singing_sounds_as_labelled():
    recording = load_only("vocadito", REAL, hop_samples=80)
    assert len(recording.f0_hz) == 6642 and recording.has_pitch.all()
    off = cents_off(recording, range(-10, 11))
    shares = {shift: np.mean(errors < 50) for shift, errors in off.items()}
    assert shares[0] > 0.98, shares
    assert shares[0] > max(shares[-10], shares[10]) + 0.1, shares
