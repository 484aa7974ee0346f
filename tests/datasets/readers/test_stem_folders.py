"""Stems of one's own, in made-up folders of every layout."""

import collections
import dataclasses
import pathlib
import pickle

import numpy as np
import pytest
import soundfile
from made_copies.stem_folders import LEVELS, write_audio, write_incoherent

from majl_jax.audio import files, libav
from majl_jax.datasets import records, source_files, stem_pairs, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, stem_folders
from majl_jax.datasets.splits import seeded_split, shuffled
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

GRID = Grid(16000, 320)
NAMES = {
    "by_song": "stems_coherent",
    "by_source": "stems_coherent_by_source",
    "incoherent": "stems_incoherent",
}


def tracks(root: pathlib.Path, layout: str, *, channels: int = 1, **options) -> list[track.Track]:
    grid = dataclasses.replace(GRID, channels=channels)
    return READERS[NAMES[layout]].tracks(str(root), grid=grid, **options)


def stems(root: pathlib.Path, layout: str) -> tuple[str, ...]:
    return READERS[NAMES[layout]].stems_of(str(root))


def used(found: list[track.Track]) -> list[track.Track]:
    return [one for one in found if not one.left_out]


def left_out(found: list[track.Track]) -> dict[str, str]:
    return {one.id: one.left_out for one in found if one.left_out}


def check_levels(one: track.Track, *, at: int = 4000) -> None:
    recording = pickle.loads(pickle.dumps(one)).load()
    track.check(recording)
    assert recording.stems == ("hat", "kick", "snare") and recording.audio.shape[1:] == (3, 1)
    assert recording.has_stems.all() and not recording.has_pitch.any()
    np.testing.assert_allclose(
        recording.audio[at, :, 0], [LEVELS[stem] for stem in recording.stems], atol=1e-3
    )


PLACES = {
    "by_song": ["{song}/{stem}.wav", "{song}/mix.wav"],
    "by_song, deeper": ["{song}/{stem}/{stem}.wav", "{song}/mixture/mixture.wav"],
    "by_source": ["{stem}/{song}.wav", "mix/{song}.wav"],
}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("divided", [False, True])
def test_coherent_stems_of_a_song_are_a_track(tmp_path, places, divided):
    layout = places.split(",")[0]
    songs = ["one.a", "two"] if not divided else ["train/one.a", "validation/two", "test/3"]
    for song in songs:
        top = f"{song.split('/')[0]}/" if divided else ""
        for stem, level in LEVELS.items():
            of_stem, of_mix = (
                top + place.format(song=song.removeprefix(top), stem=stem)
                for place in PLACES[places]
            )
            write_audio(tmp_path / of_stem, level, rate=22050)
            write_audio(tmp_path / of_mix, 0.9)
    assert stems(tmp_path, layout) == ("hat", "kick", "snare")
    found = tracks(tmp_path, layout)
    if divided:
        expected = {"train/one.a": "train", "valid/two": "valid", "test/3": "test"}
    else:
        expected = {"one.a": "train", "two": "train"}
    assert {one.id: one.split for one in found} == expected and not left_out(found)
    for one in found:
        check_levels(one)
        assert one.seconds == 0.5


def test_songs_with_other_stems_than_most_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(libav, "is_installed", lambda: False)
    for song in ("a", "b", "c"):
        for stem, level in LEVELS.items():
            write_audio(tmp_path / song / f"{stem}.wav", level)
    (tmp_path / "b/snare.wav").unlink()
    write_audio(tmp_path / "b/snair.wav", 0.2)
    write_audio(tmp_path / "c/vocals.wav", 0.2)
    (tmp_path / "d").mkdir()
    write_audio(tmp_path / "c/parts/old/hat.wav", 0.2)
    (tmp_path / "c/bass.m4a").touch()
    write_audio(tmp_path / "loose.wav", 0.2)
    found = tracks(tmp_path, "by_song")
    assert [one.id for one in used(found)] == ["a"] and stems(tmp_path, "by_song") == tuple(
        sorted(LEVELS)
    )
    assert left_out(found) == {
        "b": "without snare and with snair, which most songs do not have",
        "c": "with vocals, which most songs do not have",
        "c/parts/old/hat.wav": stem_folders.ELSEWHERE,
        "c/bass.m4a": libav.lacking("bass.m4a"),
        "loose.wav": stem_folders.ELSEWHERE,
        "d": stem_folders.NO_AUDIO,
    }
    (tmp_path / "a/hat.wav").unlink()
    with pytest.raises(
        ValueError, match="no song has hat, kick, snare and nothing else: is a name"
    ):
        tracks(tmp_path, "by_song")


def test_a_name_that_a_source_lacks_is_left_out(tmp_path):
    for stem, level in LEVELS.items():
        for song in ("a", "b"):
            write_audio(tmp_path / stem / f"{song}.flac", level)
    (tmp_path / "kick/b.flac").unlink()
    write_audio(tmp_path / "hat/a.wav", LEVELS["hat"])  # there twice
    found = tracks(tmp_path, "by_source")
    assert left_out(found) == {"b": "without kick"}
    (one,) = used(found)
    check_levels(one)
    assert {path.name for path in one.paths} == {"a.wav", "a.flac"} and len(one.paths) == 3


def test_folders_the_other_way_round_are_noticed(tmp_path):
    for stem in LEVELS:
        for number in range(17):
            write_audio(tmp_path / stem / f"{number}.wav", 0.1, seconds=0.01)
    message = r"has 17 sources \(0, 1, 10, 11, \.\.\.\), .*use stems_coherent_by_source"
    with pytest.raises(ValueError, match=message):
        tracks(tmp_path, "by_song")
    assert len(used(tracks(tmp_path, "by_source"))) == 17
    write_audio(tmp_path / "mix/1.wav", 0.9)
    with pytest.raises(ValueError, match="folder of mixtures, so use stems_coherent_by_source"):
        tracks(tmp_path, "by_song")


def test_incoherent_files_are_paired_and_none_is_lost(tmp_path):
    for split, counts in {
        "train": {"kick": 7, "snare": 3, "hat": 1},
        "valid": {"kick": 1, "snare": 1, "hat": 1},
    }.items():
        write_incoherent(tmp_path / split, counts)
    assert stems(tmp_path, "incoherent") == ("hat", "kick", "snare")
    found = tracks(tmp_path, "incoherent")
    assert not left_out(found)
    assert collections.Counter(one.split for one in found) == {"train": 7, "valid": 1}
    times = collections.Counter(path for one in found for path in one.paths)
    everything = {p for p in tmp_path.rglob("*") if p.suffix in (".wav", ".flac")}
    assert set(times) == everything
    of_train = {path: count for path, count in times.items() if "train" in path.parts}
    assert all(count == 1 for path, count in of_train.items() if "kick" in path.parts)
    assert sorted(c for p, c in of_train.items() if "snare" in p.parts) == [2, 2, 3]
    assert len({one.id for one in found}) == 8
    assert not any(
        {"train", "valid"} <= {part for path in one.paths for part in path.parts} for one in found
    )
    for one in found:
        check_levels(one, at=1500)


def test_the_pairs_are_drawn_by_the_seed(tmp_path):
    write_incoherent(tmp_path / "train", {"kick": 7, "snare": 7, "hat": 7})

    def pairing(seed: int) -> list[tuple[pathlib.Path, ...]]:
        return [one.paths for one in tracks(tmp_path, "incoherent", seed=seed)]

    assert pairing(0) == pairing(0) != pairing(1)
    numbers = [[path.stem.split()[1] for path in paths] for paths in pairing(0)]
    assert any(len(set(three)) > 1 for three in numbers)  # not as they were sorted


def test_every_round_through_a_shorter_source_is_in_another_order():
    names = {"long": [str(n) for n in range(30)], "short": [str(n) for n in range(10)]}
    short = [pair[1] for pair in stem_pairs.pairs(names, seed=0)]
    rounds = [short[n : n + 10] for n in (0, 10, 20)]
    assert all(sorted(one) == sorted(names["short"]) for one in rounds)
    assert len({tuple(one) for one in rounds}) == 3


def test_shorter_files_end_in_silence(tmp_path):
    for stem, seconds in (("kick", 3.0), ("snare", 0.5)):
        write_audio(tmp_path / stem / "a.wav", LEVELS[stem], seconds=seconds, channels=2)
    (one,) = tracks(tmp_path, "incoherent", channels=2)
    audio = one.load().audio
    assert audio.shape == (48000, 2, 2) and one.seconds == 3.0
    np.testing.assert_allclose(audio[[7999, 8000], 1, 0], [0.2, 0.0], atol=1e-4)
    np.testing.assert_allclose(audio[47999, 0], [0.1, 0.1], atol=1e-4)
    # Coherent stems belong together: there it is a fault.
    (one,) = tracks(tmp_path, "by_source")
    with pytest.raises(BadTrack, match=r"stems are 3\.00, 0\.50 s long; expected equal lengths"):
        one.load()


def test_without_folders_of_splits_the_files_of_each_source_are_divided(tmp_path):
    write_incoherent(tmp_path, {"kick": 20, "snare": 10, "hat": 4})
    found = tracks(tmp_path, "incoherent")
    counts = collections.Counter(one.split for one in found)
    assert counts == {"train": 16, "valid": 2, "test": 2}
    split_of = collections.defaultdict(set)
    for one in found:
        for path in one.paths:
            split_of[path].add(one.split)
    assert len(split_of) == 34 and all(len(splits) == 1 for splits in split_of.values())
    for path in (tmp_path / "hat").rglob("h [23].*"):
        path.unlink()
    assert {one.split for one in tracks(tmp_path, "incoherent")} == {"train"}  # two hats only


def test_splits_must_have_the_same_sources(tmp_path):
    write_incoherent(tmp_path / "train", {"kick": 2, "snare": 2})
    write_audio(tmp_path / "test/kick/a.wav", 0.1)
    with pytest.raises(
        ValueError, match=r"test has no usable file of snare, .* is a folder misspelt"
    ):
        tracks(tmp_path, "incoherent")
    write_audio(tmp_path / "test/snair/a.wav", 0.1)
    with pytest.raises(ValueError, match="train has no usable file of snair"):
        tracks(tmp_path, "incoherent")


@pytest.mark.parametrize("layout", ["by_source", "incoherent"])
def test_an_empty_folder_of_a_source_is_an_error(tmp_path, layout):
    for stem in ("kick", "snare"):
        write_audio(tmp_path / stem / "a.wav", 0.1)
    for harmless in ("mix", ".git"):
        (tmp_path / harmless).mkdir()
    assert len(tracks(tmp_path, layout)) == 1
    (tmp_path / "hat").mkdir()
    with pytest.raises(ValueError, match="hat: no audio file in it; expected SOURCE/"):
        tracks(tmp_path, layout)


def test_what_lies_beside_the_splits_is_left_out(tmp_path):
    write_incoherent(tmp_path / "train", {"kick": 1, "snare": 1})
    write_audio(tmp_path / "tets/kick/a.wav", 0.1)
    write_audio(tmp_path / "train/loose.wav", 0.1)
    assert left_out(tracks(tmp_path, "incoherent")) == {
        "tets/kick/a.wav": source_files.OUTSIDE,
        "train/loose.wav": stem_folders.ELSEWHERE,
    }


@pytest.mark.parametrize("layout", NAMES)
def test_a_folder_without_stems_is_refused(tmp_path, layout):
    for source in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(FileNotFoundError, match=r"no stems found; expected SO(NG|URCE)/"):
            tracks(source, layout)
    with pytest.raises(ValueError, match="--source is missing: a folder of stems"):
        READERS[NAMES[layout]].tracks(None, grid=GRID)
    write_audio(tmp_path / "only/a.wav", 0.1)  # nothing to separate
    with pytest.raises(ValueError, match=r"has 1 sources \((a|only)\), expected 2 to 16"):
        tracks(tmp_path, layout)


def test_damaged_files_are_tracks_that_cannot_be_loaded(tmp_path):
    write_incoherent(tmp_path / "train", {"kick": 3, "snare": 3})
    bad = write_audio(tmp_path / "train/kick/bad.wav", 0.1)
    bad.write_bytes(bad.read_bytes()[:500])
    found = tracks(tmp_path, "incoherent")
    assert len(found) == 4 and not left_out(found)
    for one in found:
        if one.id == "train/kick/bad.wav":
            with pytest.raises(files.AudioFileError, match=r"bad\.wav: .*truncated"):
                one.load()
        else:
            one.load()  # no other file goes with it


def test_stereo_stays_stereo_where_asked(tmp_path):
    for stem in ("kick", "snare"):
        path = tmp_path / f"song/{stem}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, np.full((8000, 2), [0.2, 0.1]), 16000)
    (stereo,), (mono,) = (tracks(tmp_path, "by_song", channels=n) for n in (2, 1))
    np.testing.assert_allclose(stereo.load().audio[4000], [[0.2, 0.1]] * 2, atol=1e-3)
    np.testing.assert_allclose(mono.load().audio[4000], [[0.15]] * 2, atol=1e-3)


def test_prepare_takes_the_names_of_the_stems_from_the_folders(tmp_path, capsys):
    source = tmp_path / "mine"
    write_incoherent(source / "train", {"kick": 3, "snare": 2})
    write_incoherent(source / "test", {"kick": 1, "snare": 1})
    flags = ["--file_format=array_record", "--processes=1", "--record_seconds=0.1"]
    folders = [f"--source={source}", f"--output={tmp_path / 'out'}"]
    assert prepare.main(["--dataset=stems_incoherent", *folders, *flags]) == 0
    assert "3 train, 0 valid, 1 test; 0 skipped" in capsys.readouterr().out
    opened = records.open_prepared(tmp_path / "out/stems_incoherent")
    assert opened.layout.stems == ("kick", "snare")
    song = next(records.read_tracks(tmp_path / "out/stems_incoherent", "train"))
    np.testing.assert_allclose(song["stems"][800, :, 0] / 32768, [0.1, 0.2], atol=1e-3)
    assert prepare.main(["--dataset=stems_coherent", *folders, *flags]) == 1
    assert "error: " in capsys.readouterr().err


def test_a_seeded_split_is_a_tenth_of_all_and_a_tenth_of_the_rest():
    for count, expected in {83: (67, 8, 8), 10: (8, 1, 1), 3: (1, 1, 1), 2: (2, 0, 0)}.items():
        names = [f"song {n}" for n in range(count)]
        drawn = seeded_split(names, seed=0)
        counts = collections.Counter(drawn.values())
        assert (counts["train"], counts["valid"], counts["test"]) == expected
        assert drawn == seeded_split(names[::-1], seed=0)
    assert seeded_split([], seed=0) == {}
    order = shuffled([str(n) for n in range(50)], seed=0)
    assert order != sorted(order) and order != shuffled(order, seed=1)
    few = shuffled(order[::2], seed=0)
    assert few == order[::2]  # taking names away leaves the order of the others
