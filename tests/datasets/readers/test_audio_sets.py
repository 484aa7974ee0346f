"""Made-up copies of the sets without labels: FMA, E-GMD and a folder of one's own."""

import pickle

import numpy as np
import pytest
import soundfile
from made_copies.audio_sets import write_audio, write_e_gmd, write_fma

from majl_jax.audio import libav
from majl_jax.datasets import source_files, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import audio_folder, e_gmd, fma
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import loading

RATE, HOP = 22050, 256
GRID = Grid(RATE, HOP)
MODULES = {"fma": fma, "e_gmd": e_gmd, "audio_folder": audio_folder}


# As the authors' file: two lines of names, the index name, cells with line ends and commas in them.
TRACKS_CSV = (
    ",album,artist,set,set,track,track\n,information,id,split,subset,genre_top,title\n"
    "track_id,,,,,,\n"
    '2,"<p>one,\ntwo</p>",1,training,small,Hip-Hop,Food\n'
    f'5,"{"x" * 200_000}",,validation,large,,"Ele, ctric"\n'
    "140,,54,test,large,Folk,Queen\n"
)


def check_load(one: track.Track, channels: int = 1):
    recording = pickle.loads(pickle.dumps(one)).load()
    track.check(recording)
    assert recording.stems == ("mixture",) and recording.has_stems.tolist() == [False]
    frames = len(recording.audio) // HOP
    assert recording.f0_hz.shape == recording.has_pitch.shape == (frames, 1)
    assert not recording.has_pitch.any() and not recording.f0_hz.any()
    assert recording.audio.shape[1:] == (1, channels) and recording.grid.sample_rate_hz == RATE
    return recording


@pytest.mark.parametrize("name", MODULES)
def test_they_are_mixtures_of_one_voice(name):
    assert MODULES[name].STEMS == ("mixture",) and MODULES[name].VOICES == 1


@pytest.mark.parametrize("name", MODULES)
def test_a_folder_that_is_no_copy_is_refused(tmp_path, name):
    with pytest.raises(
        FileNotFoundError, match=r"(no copy of|no audio files).* expected .*(wav|mp3)"
    ):
        MODULES[name].tracks(str(tmp_path), grid=GRID)
    with pytest.raises(ValueError, match=r"--source is missing: .* expected"):
        MODULES[name].tracks(None, grid=GRID)


def test_fma_takes_its_splits_and_artists_from_the_table(tmp_path):
    write_fma(tmp_path, "000005", "000002", "000140", "000200", table=TRACKS_CSV)
    found = fma.tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split, one.group) for one in found] == [
        ("000002", "train", "artist 1"),
        ("000005", "valid", ""),
        ("000140", "test", "artist 54"),
        ("000200", "train", ""),  # not in the table
    ]
    recording = check_load(found[0])
    assert abs(len(recording.audio) - RATE) < 0.1 * RATE  # MP3 pads
    assert np.abs(recording.audio[5000:15000]).max() == pytest.approx(0.375, abs=0.03)
    assert found[0].seconds > 0


def test_fma_without_a_table_is_train_and_editions_are_found(tmp_path):
    write_fma(tmp_path / "fma_small", "000002")
    write_fma(tmp_path / "fma_large", "000003", "155320")
    (tmp_path / "fma_large/checksums").touch()
    found = fma.tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split) for one in found] == [("000003", "train"), ("155320", "train")]
    write_fma(tmp_path, table=TRACKS_CSV.replace("140,,", "155320,,"))  # beside the audio
    found = fma.tracks(str(tmp_path / "fma_large"), grid=GRID)
    assert [(one.id, one.split) for one in found] == [("000003", "train"), ("155320", "test")]


def test_an_fma_table_without_artists_has_no_groups(tmp_path):
    write_fma(tmp_path, "000002", "000140", table=TRACKS_CSV.replace(",id,", ",name,"))
    found = fma.tracks(str(tmp_path), grid=GRID)
    assert [(one.split, one.group) for one in found] == [("train", ""), ("test", "")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", r"tracks\.csv: .*expected the column \(set, split\)"),
        (TRACKS_CSV.replace("split", "part"), r"'set', 'split'"),
        (TRACKS_CSV.replace("validation", "other"), "song 5 is of split 'other'"),
    ],
)
def test_an_fma_table_that_cannot_be_used(tmp_path, table, message):
    write_fma(tmp_path, "000002", table=table)
    with pytest.raises(BadTrack, match=message):
        fma.tracks(str(tmp_path), grid=GRID)


def test_fma_files_that_cannot_be_decoded_are_bad_tracks(tmp_path):
    write_fma(tmp_path, "000002", "000003")
    (tmp_path / "000/000002.mp3").write_bytes(b"\0" * 100)
    (tmp_path / "000/000003.mp3").write_bytes(b"")
    for one, message in zip(
        fma.tracks(str(tmp_path), grid=GRID), ("not audio", "empty"), strict=True
    ):
        with pytest.raises(BadTrack, match=rf"{one.id}\.mp3: .*{message}"):
            one.load()


def test_e_gmd_takes_its_splits_from_the_table(tmp_path):
    write_e_gmd(tmp_path / "e-gmd-v1.0.0")
    write_audio(tmp_path / "e-gmd-v1.0.0/drummer1/s1/3_2.flac")
    found = e_gmd.tracks(str(tmp_path), grid=GRID)
    assert [(one.id, one.split, one.group, one.seconds) for one in found] == [
        ("drummer1/s1/1_2", "train", "drummer1/s1/1", 1.5),
        ("drummer1/s1/2_2", "valid", "drummer1/s1/2", 2.5),
        ("drummer1/s1/3_2", "test", "drummer1/s1/3", 3.5),
    ]
    assert [one.left_out for one in found] == ["", e_gmd.NO_AUDIO, ""]
    assert check_load(found[0]).audio.shape == (RATE, 1, 1)
    assert check_load(found[2]).audio.shape == (RATE, 1, 1)
    with pytest.raises(BadTrack, match=r"2_2\.wav: no such file"):
        found[1].load()
    for one in (found[0], found[2]):
        one.paths[0].unlink()
    with pytest.raises(FileNotFoundError, match="no audio of any of its 3 recordings"):
        e_gmd.tracks(str(tmp_path), grid=GRID)


def test_a_folder_is_read_in_natural_order_with_its_subfolders(tmp_path):
    names = ("song 10.wav", "Song 2.flac", "a/b/1.ogg", "a/b/1.mp3", "z.aif", "x.opus")
    for name in names:
        write_audio(tmp_path / name, rate=48000)
    for name in ("notes.txt", ".hidden.wav", ".trash/old.wav", "a/._1.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no audio")
    found = audio_folder.tracks(str(tmp_path), grid=GRID)
    order = ["a/b/1.mp3", "a/b/1.ogg", "Song 2.flac", "song 10.wav", "x.opus", "z.aif"]
    assert [one.id for one in found] == order
    assert {one.split for one in found} == {"train"} and found[0].group == "a/b"
    assert found[3].seconds == found[5].seconds == 1.0 and found[0].seconds > 0
    for one in found:
        assert len(check_load(one).audio) == pytest.approx(RATE, rel=0.1)


def test_split_folders_are_splits_and_what_lies_beside_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(libav, "is_installed", lambda: False)
    for name in ("train/1.wav", "valid/x/2.wav", "test/3.wav", "loose.wav", "more/4.wav"):
        write_audio(tmp_path / name)
    (tmp_path / "test/5.m4a").touch()
    found = {one.id: one for one in audio_folder.tracks(str(tmp_path), grid=GRID)}
    assert {name: one.split for name, one in found.items() if not one.left_out} == {
        "train/1.wav": "train",
        "valid/x/2.wav": "valid",
        "test/3.wav": "test",
    }
    assert found["loose.wav"].left_out == found["more/4.wav"].left_out == source_files.OUTSIDE
    assert found["test/5.m4a"].left_out.startswith(".m4a files are read with PyAV")


def test_stereo_stays_stereo_where_asked(tmp_path):
    write_audio(tmp_path / "a.wav")
    (one,) = audio_folder.tracks(str(tmp_path), grid=Grid(RATE, HOP, 2))
    left, right = check_load(one, channels=2).audio[:, 0].T
    np.testing.assert_allclose(right, 0.5 * left, atol=1e-4)


def test_long_names_still_make_file_names(tmp_path):
    names = [f"{'音' * 40}/{'楽' * 30}{end}.wav" for end in ("a", "b")]
    for name in names:
        write_audio(tmp_path / name)
    found = audio_folder.tracks(str(tmp_path), grid=GRID)
    cached = {loading.cached(tmp_path, one.id) for one in found}
    assert len(cached) == 2 and all(len(path.name.encode()) < 240 for path in cached)
    for path in cached:
        path.with_suffix(".1234567.tmp").touch()


def test_silence_and_damage_are_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(44100), 44100)
    content = write_audio(tmp_path / "b.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(content[:50_000])
    silent, damaged = audio_folder.tracks(str(tmp_path), grid=GRID)
    with pytest.warns(UserWarning), pytest.raises(BadTrack, match="silent file"):
        track.check(silent.load())
    with pytest.raises(BadTrack, match=r"b\.wav: holds .* truncated"):
        damaged.load()
