"""Slakh2100: made-up copies of every edition, and the real excerpts of two songs."""

import pickle

import numpy as np
import pytest
import soundfile
import yaml
from made_copies.slakh import PROGRAMS, RATE, SECONDS, touch_songs, write_song
from places import RECORDINGS

from majl_jax.audio import files
from majl_jax.datasets import records, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, slakh
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import loading

REAL = RECORDINGS / "mirdata_fixtures/slakh"
GRID = Grid(16000, 320)


def level_of(group: str) -> float:
    return sum((int(name[1:]) + 1) / 200 for name, row in PROGRAMS.items() if row[2] == group)


@pytest.mark.parametrize(("suffix", "rate"), [(".flac", 22050), (".wav", 16000)])
def test_the_groups_are_sums_by_program(tmp_path, suffix, rate):
    write_song(tmp_path / "train/Track00001", suffix=suffix, rate=rate)
    (one,) = slakh.tracks(str(tmp_path), grid=GRID)
    recording = pickle.loads(pickle.dumps(one)).load()
    track.check(recording)
    assert recording.stems == ("bass", "drums", "guitar", "piano", "others")
    assert recording.audio.shape == (8000, 5, 1)
    assert recording.has_stems.all() and not recording.has_pitch.any()
    middle = recording.audio[2000:6000, :, 0]
    np.testing.assert_allclose(
        middle, np.tile([level_of(stem) for stem in slakh.STEMS], (4000, 1)), atol=2e-3
    )
    everything = sum(range(1, len(PROGRAMS) + 1)) / 200
    np.testing.assert_allclose(middle.sum(1), everything, atol=5e-3)  # nothing lost or there twice


def test_stems_without_audio_are_counted_and_the_rest_is_used(tmp_path):
    song = write_song(tmp_path / "Track00001", suffix=".wav", rate=16000)
    for name in ("S05", "S06", "S02"):
        (song / f"stems/{name}.wav").unlink()
    text = yaml.safe_load((song / "metadata.yaml").read_text())
    text["stems"]["S05"]["audio_rendered"] = text["stems"]["S03"]["audio_rendered"] = False
    (song / "metadata.yaml").write_text(yaml.safe_dump(text))
    soundfile.write(song / "stems/S99.wav", np.ones(8000), 16000)
    one, *others = slakh.tracks(str(tmp_path), edition="baby", grid=GRID)
    assert {other.id: other.left_out for other in others} == {
        "Track00001/S05": slakh.NOT_RENDERED,
        "Track00001/S06": slakh.NO_FILE,
        "Track00001/S02": slakh.NO_FILE,
        "Track00001/S99": slakh.NOT_LISTED,
    }
    audio = one.load().audio[:, :, 0]
    assert not one.left_out and not audio[:, 0].any()  # no bass
    # S03 is said not to be rendered, but is there: its file decides.
    assert audio[100, 2] == pytest.approx(level_of("guitar"), abs=1e-3)
    assert audio[100, 4] == pytest.approx(level_of("others") - 3 / 200, abs=1e-3)


def test_the_official_splits_are_the_folders(tmp_path):
    touch_songs(tmp_path, "train/Track00001", "validation/Track01501", "test/Track01876")
    found = READERS["slakh2100"].tracks(str(tmp_path), grid=GRID)
    expected = {
        "train/Track00001": "train",
        "validation/Track01501": "valid",
        "test/Track01876": "test",
    }
    assert {one.id: one.split for one in found} == expected
    touch_songs(tmp_path, "omitted/Track00002")
    with pytest.raises(ValueError, match="has omitted/, so it is slakh2100_redux"):
        READERS["slakh2100"].tracks(str(tmp_path), grid=GRID)
    redux = READERS["slakh2100_redux"].tracks(str(tmp_path), grid=GRID)
    assert {one.id: one.split for one in redux if not one.left_out} == expected
    assert [one.id for one in redux if one.left_out == slakh.IN_OMITTED] == ["omitted/Track00002"]


def test_the_other_editions_train_folder_is_noticed(tmp_path):
    touch_songs(tmp_path, *(f"train/Track{n:05}" for n in range(1, 4)))
    limits = {"redux": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slakh, "TRAIN_TRACKS", limits)
        with pytest.raises(ValueError, match="train has 3 tracks, that of slakh2100_redux 2"):
            slakh.tracks(str(tmp_path), edition="redux", grid=GRID)
    assert slakh.TRAIN_TRACKS == {"original": 1500, "redux": 1289}


def test_the_authors_split_is_a_tenth_of_all_wherever_they_lie(tmp_path):
    names = [f"Track{n:05}" for n in range(1, 2101)]
    drawn = slakh.seeded_split(names, seed=0)
    counts = [list(drawn.values()).count(split) for split in ("train", "valid", "test")]
    assert counts == [1701, 189, 210]  # 1890 to train on, as in the paper, a tenth of them valid
    assert drawn != slakh.seeded_split(names, seed=1)
    places = [f"train/{names[n]}" for n in range(8)] + [f"omitted/{names[n]}" for n in range(8, 12)]
    touch_songs(tmp_path, *places, names[12])
    found = READERS["slakh2100_author"].tracks(str(tmp_path), seed=0, grid=GRID)
    assert [one.id for one in found if one.left_out] == []
    assert {one.group: one.split for one in found} == {name: drawn[name] for name in names[:13]}


def test_babyslakh_is_split_by_its_numbers(tmp_path):
    touch_songs(tmp_path / "babyslakh_16k", *(f"Track{n:05}" for n in range(1, 21)))
    found = READERS["babyslakh"].tracks(str(tmp_path), grid=GRID)
    assert [one.split for one in found] == ["train"] * 16 + ["valid"] * 2 + ["test"] * 2


@pytest.mark.parametrize("edition", slakh.EDITIONS)
def test_a_folder_that_is_no_copy_is_refused(tmp_path, edition):
    name = slakh.NAMES[edition]
    for source in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(
            FileNotFoundError, match=rf"is no copy of {name}: expected .*Track00001"
        ):
            READERS[name].tracks(str(source), grid=GRID)
    with pytest.raises(ValueError, match=f"--source is missing: the folder of {name}"):
        READERS[name].tracks(None, grid=GRID)
    with pytest.raises(ValueError, match="expected an edition"):
        slakh.tracks(str(tmp_path), edition="medium", grid=GRID)


def test_a_misspelt_folder_is_named(tmp_path):
    touch_songs(tmp_path, "train/Track00001", "valid/Track01501")
    with pytest.raises(
        ValueError, match="valid has tracks in it, but is none of train, validation"
    ):
        slakh.tracks(str(tmp_path), grid=GRID)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"S03": {"program_num": "24"}}, r"stems\.S03\.program_num is '24'; expected"),
        ({"S03": {"program_num": 129}}, r"stems\.S03\.program_num is 129"),
        ({"S03": {"program_num": None}}, r"stems\.S03\.program_num is None"),
        ({"S03": {"is_drum": "no"}}, r"stems\.S03\.is_drum is 'no'; expected"),
        ({"S03": "Guitar"}, r"stems\.S03 is 'Guitar'; expected stems: \{S00"),
    ],
)
def test_bad_metadata_names_the_key(tmp_path, changes, message):
    write_song(tmp_path / "train/Track00001", **changes)
    (one,) = slakh.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(BadTrack, match=rf"metadata\.yaml: {message}"):
        one.load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stems: {S00: [", "not YAML"),
        ("\x00", "not YAML"),
        ("", "has no stems; expected"),
        ("stems: []", "has no stems"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),  # nothing of a file is run
        (None, "no such file"),
    ],
)
def test_bad_metadata_files_are_named(tmp_path, text, message):
    path = write_song(tmp_path / "train/Track00001") / "metadata.yaml"
    path.unlink() if text is None else path.write_text(text)
    (one,) = slakh.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(BadTrack, match=rf"metadata\.yaml: {message}"):
        one.load()


def test_bad_audio_is_a_bad_track(tmp_path):
    song = write_song(tmp_path / "train/Track00001", suffix=".wav")
    bad = song / "stems/S04.wav"
    content = bad.read_bytes()
    bad.write_bytes(content[:4000])
    (one,) = slakh.tracks(str(tmp_path), grid=GRID)
    with pytest.raises(files.AudioFileError, match=r"S04\.wav: .*truncated"):
        one.load()
    soundfile.write(bad, np.full(3 * RATE, 0.1), RATE)
    with pytest.raises(BadTrack, match=r"0\.50 s, while another stem of the song is 3\.00 s long"):
        one.load()
    soundfile.write(bad, np.full((int(SECONDS * RATE), 2), [0.05, 0.0]), RATE)  # stereo: the mean
    assert one.load().audio[4000, 2, 0] == pytest.approx(4 / 200 + 0.025, abs=1e-3)


def test_songs_without_audio_are_left_out_or_bad(tmp_path):
    (tmp_path / "Track00001/MIDI").mkdir(parents=True)
    song = write_song(tmp_path / "Track00002")
    (song / "metadata.yaml").write_text("stems: {S77: {program_num: 0, is_drum: false}}")
    empty, other, *_ = slakh.tracks(str(tmp_path), edition="baby", grid=GRID)
    assert empty.left_out == slakh.NO_AUDIO and not other.left_out
    with pytest.raises(BadTrack, match=r"none of the stems in metadata\.yaml has audio"):
        other.load()


def test_a_worker_prepares_it(tmp_path):
    write_song(tmp_path / "copy/Track00001", suffix=".wav")
    (one,) = slakh.tracks(str(tmp_path / "copy"), edition="baby", grid=GRID)
    layout = records.Layout(
        stems=READERS["babyslakh"].stems_of(None),
        channels=1,
        sample_rate_hz=16000,
        hop_samples=320,
        record_samples=3200,
    )
    assert loading.load_one(one, layout, tmp_path).skipped == ""


@pytest.mark.skipif(not REAL.is_dir(), reason="the excerpts (../shared/audio) are not here")
@pytest.mark.parametrize(("name", "rate"), [("babyslakh", 16000), ("slakh2100_redux", 44100)])
def test_the_real_excerpts(name, rate):
    found = READERS[name].tracks(str(REAL), grid=Grid(rate, 320))
    one = found[0]
    left_out = {other.id.split("/")[-1]: other.left_out for other in found[1:]}
    assert left_out == {"S06": slakh.NOT_RENDERED} | (
        {"Track00007": slakh.NO_AUDIO} if name == "babyslakh" else {}
    )
    with pytest.warns(files.AudioFileWarning, match="every sample is zero"):  # in these seconds
        recording = one.load()
    track.check(recording)
    folder = one.paths[0].parent
    mixture, _ = files.read(folder / ("mix.wav" if name == "babyslakh" else "mix.flac"))
    np.testing.assert_allclose(recording.audio.sum(1), mixture, atol=1 / 32768)
    assert recording.audio[:, slakh.STEMS.index("guitar")].any()
