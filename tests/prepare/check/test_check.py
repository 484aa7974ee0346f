"""The doctor: every planted defect is found and named, by its own name alone, and a sound set has
no finding.
"""

import dataclasses
import functools
import json
import pathlib
import shutil

import numpy as np
import pytest
import soundfile
from made_songs import (
    HOP,
    LAYOUT,
    RATE_HZ,
    as_recording,
    assign,
    change,
    cut,
    every,
    labels,
    look,
    look_at_source,
    names,
    scaled,
    song,
    songs,
    stems,
    write,
)

from majl_jax.audio import files
from majl_jax.datasets import records, track
from majl_jax.prepare import __main__ as prepare
from majl_jax.prepare import check
from majl_jax.prepare.check import facts, mixture
from majl_jax.prepare.check.findings import KINDS


def test_a_sound_set_has_no_finding(sound):
    report = look(sound, processes=2)
    assert report.findings() == [] and not report.failed
    text = str(report)
    assert "nothing wrong found" in text and "0 errors, 0 warnings, 0 notes" in text
    (row,) = [line.split() for line in text.splitlines() if line.startswith("  train")]
    assert row[1] == "6" and row[3] == "12" and row[-2] == "100.0%"
    told = json.loads(report.to_json())
    assert told["failed"] is False and told["sets"][0]["splits"][0]["tracks"] == 6


def test_a_sound_source_has_no_finding():
    assert look_at_source(songs()).findings() == []


def in_stereo(one: records.Record) -> records.Record:
    """With two channels, and the three pitches in an order of their own."""
    audio = np.concatenate([one["stems"], one["stems"][:, ::-1]], axis=2)
    order = [2, 0, 1]
    return {**one, "stems": audio, "f0_hz": one["f0_hz"][:, order]}


def test_a_sound_set_in_stereo_with_pitches_of_the_mixture(tmp_path):
    layout = dataclasses.replace(LAYOUT, channels=2, voices=3)
    tracks = {split: [in_stereo(one) for one in found] for split, found in songs().items()}
    assert look(write(tmp_path / "a", cut(tracks, layout), layout=layout)).findings() == []
    late = tracks["valid"][0]
    late["f0_hz"] = np.roll(late["f0_hz"], 8, axis=0)
    found = names(look(write(tmp_path / "b", cut(tracks, layout), layout=layout)))
    assert found.keys() == {"labels shifted"}
    assert found["labels shifted"].where == ("valid_0 (80 ms too late)",)


# One track of `train` with one defect: what is done to the whole track, and what is to be found.


TRACK_DEFECTS = {
    "short track": [
        change(key, lambda a: a[: len(a) // 10]) for key in ("stems", "f0_hz", "has_pitch")
    ],
    "mostly silent": [stems(assign(slice(3 * RATE_HZ), 0.0)), labels(assign(slice(300), 0.0))],
    "silent stem": [stems(assign((slice(None), 1), 0.0)), labels(assign((slice(None), 1), 0.0))],
    "very quiet": [stems(scaled(0.01))],
    "clipping": [stems(lambda a: np.clip(20 * a[:, 0], -32768, 32767, out=a[:, 0]))],
    "flattened peaks": [stems(lambda a: np.clip(20 * a[:, 0], -12000, 12000, out=a[:, 0]))],
    "DC offset": [stems(assign((slice(None), 1), lambda a: a[:, 1] + 1000))],
    "beyond full scale": [stems(scaled(6.0))],
    "equal stems": [stems(assign((slice(None), 1), lambda a: 0.7 * a[:, 0]))],
    "inverted stem": [stems(assign((slice(None), 1), lambda a: -0.8 * a[:, 0]))],
    "stem is the sum": [stems(assign((slice(None), 2), lambda a: a[:, :2].sum(1)))],
    "unknown stems sound": [change("has_stems", np.zeros_like)],
    "unlabelled tracks": [change("has_pitch", np.zeros_like)],
    "unvoiced tracks": [change("f0_hz", np.zeros_like)],
    "pitch in silence": [stems(assign((slice(2 * RATE_HZ), 1), 0.0))],
    "labels shifted": [change("f0_hz", lambda f0_hz: np.roll(f0_hz, 6, axis=0))],
    "labels do not fit": [change("f0_hz", lambda f0_hz: f0_hz * np.float32(2**0.5))],
}
ALSO = {  # what comes with a defect
    "clipping": {"beyond full scale"},
    "mostly silent": {"silence"},
    "very quiet": {"far quieter"},
}


@pytest.mark.parametrize("name", TRACK_DEFECTS)
def test_a_defect_of_a_track_is_found_and_nothing_else(name):
    tracks = songs()
    for apply in TRACK_DEFECTS[name]:
        apply(tracks["train"][1])
    found = names(look_at_source(tracks))
    assert found.keys() == {name} | ALSO.get(name, set())
    (where,) = found[name].where
    assert where.startswith("train_1") and found[name].split in ("train", "")


def test_how_late_labels_come_is_told():
    tracks = songs()
    for one in (one for found in tracks.values() for one in found):
        change("f0_hz", lambda f0_hz: np.roll(f0_hz, -6, axis=0))(one)
    found = names(look_at_source(tracks))
    assert found.keys() == {"labels shifted"}
    assert "60 ms too early over all tracks" in found["labels shifted"].what


# Defects that a reader's tracks cannot have, or are refused with: of records on disk.


def piece(one: records.Record, number: int) -> records.Record:
    return list(records.cut(one, LAYOUT))[number]


def with_defects() -> dict[str, list[records.Record]]:
    """Records of one split; each track is named after its defect."""
    out = {}
    for seed, name in enumerate(
        (
            "record length",
            "gap",
            "overlap",
            "padding",
            "silent track",
            "pitch NaN or negative",
            "pitch out of range",
            "sound",
        ),
        start=200,
    ):
        out[name] = list(records.cut(song(name, seed, 6.0), LAYOUT))
    out["record length"][0]["valid_samples"] = 0
    del out["gap"][1]
    out["overlap"].insert(1, {**out["overlap"][0], "start_sample": 40 * HOP})
    out["padding"] = list(records.cut(song("padding", 190, 1.5), LAYOUT))
    out["padding"][0]["stems"][-5:] = 9
    out["padding"][0]["has_pitch"][-1] = True
    for one in out["silent track"]:
        one["stems"][:], one["f0_hz"][:] = 0, 0
    out["pitch NaN or negative"][1]["f0_hz"][3, 0] = np.nan
    out["pitch NaN or negative"][1]["f0_hz"][4, 0] = -1.0
    out["pitch out of range"][2]["f0_hz"][5:9, 2] = 4100.0  # half the sample rate is 4000
    return out


def test_defects_of_records_are_found_each_in_its_track(tmp_path):
    ill = with_defects()
    pieces = {"train": [one for found in ill.values() for one in found]}
    found = names(look(write(tmp_path / "ill", pieces), processes=2))
    also = {"unvoiced tracks": "silent track", "silence": "silent track"}
    assert found.keys() == {*ill, *also} - {"sound"}
    for name, finding in found.items():
        expected = also.get(name, name)
        (where,) = finding.where
        assert where.startswith(expected), finding
    assert "nothing from 2.0 to 4.0 s" in found["gap"].where[0]
    assert "5 samples that sound and 3 labels" in found["padding"].where[0]
    assert "1 NaN or infinite, 1 negative" in found["pitch NaN or negative"].where[0]
    assert "4 labels, to 4100 Hz" in found["pitch out of range"].where[0]


def test_a_gap_is_right_where_silence_was_dropped(tmp_path):
    pieces = cut(songs())
    del pieces["train"][1]
    options = {"drop_silence": True}
    assert look(write(tmp_path / "made", pieces, options=options)).findings() == []


# Defects of a whole split or set.


def test_a_stem_that_never_sounds():
    tracks = songs()
    silent = (stems(assign((slice(None), 2), 0.0)), labels(assign((slice(None), 2), 0.0)))
    every({"valid": tracks["valid"]}, *silent)
    found = names(look_at_source(tracks))
    assert found.keys() == {"stem never sounds"}
    assert found["stem never sounds"].split == "valid" and found["stem never sounds"].what == "rest"


def test_much_silence():
    tracks = songs()
    every(tracks, stems(assign(slice(RATE_HZ), 0.0)), labels(assign(slice(100), 0.0)))
    report = look_at_source(tracks)
    assert {one.name for one in report.findings()} == {"silence"} and len(report.findings()) == 3
    assert not report.failed


def test_a_track_far_quieter_than_the_others():
    tracks = songs()
    stems(scaled(0.02))(tracks["train"][2])
    assert names(look_at_source(tracks))["far quieter"].where[0].startswith("train_2 (34 dB below")


def test_no_labels_at_all_and_in_one_split_only():
    tracks = songs()
    every({"valid": tracks["valid"]}, change("has_pitch", np.zeros_like))
    found = names(look_at_source(tracks))
    assert found.keys() == {"split without labels"}
    assert found["split without labels"].split == "valid"
    every(tracks, change("has_pitch", np.zeros_like))
    assert names(look_at_source(tracks)).keys() == {"no pitch labels"}


def test_labels_that_are_never_voiced():
    tracks = songs()
    every(tracks, change("f0_hz", np.zeros_like))
    report = look_at_source(tracks)
    assert names(report).keys() == {"never voiced"} and not report.failed


def test_note_numbers_instead_of_hertz():
    def to_midi(f0_hz: np.ndarray) -> np.ndarray:
        return np.where(f0_hz > 0, np.round(69 + 12 * np.log2(f0_hz.clip(1) / 440)), 0)

    tracks = songs()
    every(tracks, change("f0_hz", lambda f0_hz: to_midi(f0_hz).astype(np.float32)))
    report = look_at_source(tracks)
    assert "pitch is a note number" in {one.name for one in report.findings()} and report.failed


# The same twice.


def as_copy(one: records.Record, name: str) -> records.Record:
    return {**one, "track": name}


def test_the_same_audio_in_two_splits():
    tracks = songs()
    tracks["test"].append(as_copy(tracks["train"][0], "copy"))
    report = look_at_source(tracks)
    found = names(report)
    assert found.keys() == {"same audio in two splits"} and report.failed
    assert found["same audio in two splits"].where == ("train: train_0 = test: copy",)


def resembling(one: records.Record, name: str) -> records.Record:
    """Turned down, without its beginning, and with noise."""
    audio, start = one["stems"].astype(np.float64), 37 * HOP + 11
    audio = 0.4 * audio[start:] + np.random.default_rng(0).normal(0, 2, audio[start:].shape)
    frames = len(audio) // HOP
    none = np.zeros((frames, 3), bool)
    blank = {"f0_hz": none.astype(np.float32), "has_pitch": none, "valid_samples": len(audio)}
    return {**one, **blank, "stems": np.round(audio).astype(np.int16), "track": name}


def test_the_same_sound_in_two_splits():
    tracks = songs()
    long = song("long", 77, 12.0)
    tracks["train"].append(long)
    tracks["valid"].append(resembling(long, "copy"))
    found = names(look_at_source(tracks))
    assert found.keys() == {"same sound in two splits", "unlabelled tracks"}
    assert found["same sound in two splits"].where == ("train: long = valid: copy",)


def test_the_same_stem_in_two_splits():
    tracks = songs()
    donor = tracks["train"][3]
    stems(assign((slice(None), 1), donor["stems"][:, 1]))(tracks["test"][0])
    labels(assign((slice(None), 1), donor["f0_hz"][:, 1]))(tracks["test"][0])
    found = names(look_at_source(tracks))
    assert found.keys() == {"same stem in two splits"}
    where = ("train: train_3 (bass) = test: test_0 (bass)",)
    assert found["same stem in two splits"].where == where


def test_the_same_twice_in_one_split():
    tracks = songs()
    long = song("long", 77, 12.0)
    tracks["train"] += [long, as_copy(long, "again"), resembling(long, "like it")]
    report = look_at_source(tracks)
    found = names(report)
    assert found.keys() == {"same audio twice", "same sound twice", "unlabelled tracks"}
    assert found["same audio twice"].where == ("train: long = train: again",)
    assert not report.failed


def test_the_same_track_in_two_splits(tmp_path):
    tracks = songs()
    tracks["test"].append(song("train_0", 99))
    found = names(look(write(tmp_path / "made", cut(tracks))))
    assert found.keys() == {"same track in two splits"}
    assert found["same track in two splits"].where == ("train_0 (train, test)",)


def test_sets_side_by_side(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "a")
    tracks = songs()
    other = {"valid": [tracks["train"][0], song("other", 98)]}
    write(tmp_path / "b", cut(other), layout=dataclasses.replace(LAYOUT, hop_samples=HOP))
    shutil.copytree(tmp_path / "b", tmp_path / "elsewhere" / "c")
    found = names(look(tmp_path / "a", tmp_path / "b", tmp_path / "elsewhere" / "c"))
    assert found.keys() == {"same sound in two sets"}
    where = ("a/train: train_0 = b/valid: train_0",)
    assert found["same sound in two sets"].where == where


def test_sets_side_by_side_of_other_layouts(sound, tmp_path):
    shutil.copytree(sound, tmp_path / "a")
    path = shutil.copytree(sound, tmp_path / "b") / records.INDEX_FILE
    index = json.loads(path.read_text())
    index["layout"]["sample_rate_hz"] = 11025
    path.write_text(json.dumps(index))
    found = [one for one in look(tmp_path / "a", tmp_path / "b").findings()]
    (differ,) = [one for one in found if one.name == "layouts differ"]
    assert differ.what == "sample_rate_hz is 11025, in a 8000"


# A source.


def broken() -> track.Recording:
    raise track.BadTrack("b.wav: cut off")


def test_files_that_cannot_be_used():
    listed = [track.Track("a", "train", functools.partial(as_recording, song("a", 1)))]
    listed += [track.Track("b", "train", broken), track.Track("c", "train", broken, left_out="no")]
    for processes in (1, 2):
        made = {"made": check.Source(listed, LAYOUT, "made up")}
        report = check.check([], made, processes=processes)
        found = names(report)
        assert found.keys() == {"unreadable track"} and report.failed
        assert found["unreadable track"].where == ("b (b.wav: cut off)",)
        assert found["unreadable track"].what == "1 of 2 tracks"


def test_a_group_in_two_splits():
    tracks = songs()
    found = names(look_at_source(tracks, group="one singer"))
    assert found["group in two splits"].where == ("one singer (test, train, valid)",)


def with_mixture(folder: pathlib.Path, audio: np.ndarray) -> str:
    """How the sum of a song's stems differs from this mixture beside them."""
    path = folder / "song" / "stems" / "bass.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "song" / "A Song_MIX.wav", audio, RATE_HZ)
    one = song("song", 3)
    listed = track.Track("song", "train", functools.partial(as_recording, one), paths=(path,))
    report = check.check([], {"made": check.Source([listed], LAYOUT, "made up")})
    assert {one.name for one in report.findings()} <= {"mixture differs"}
    return " ".join(one.where[0] for one in report.findings())


def test_stems_against_the_mixture_of_the_data_set(tmp_path):
    audio = song("song", 3)["stems"][:, :, 0] / 32768
    assert with_mixture(tmp_path, 0.5 * audio.sum(1)) == ""
    assert "A Song_MIX.wav agrees to" in with_mixture(tmp_path, audio[:, :1].sum(1))
    later = np.roll(audio.sum(1), 400)
    assert "+50 ms later to" in with_mixture(tmp_path, later)
    assert "is +2.00 s longer" in with_mixture(tmp_path, np.pad(audio.sum(1), (0, 2 * RATE_HZ)))
    with pytest.warns(files.AudioFileWarning, match="every sample is zero"):
        assert "is silent" in with_mixture(tmp_path, 0 * audio.sum(1))
    soundfile.write(tmp_path / "song" / "other mix.wav", audio.sum(1), RATE_HZ)
    assert with_mixture(tmp_path, later) == "", "of two mixtures it is not known which"


def test_a_stem_that_is_called_a_mix_is_no_mixture(tmp_path):
    one = song("song", 3)
    audio = one["stems"][:, :, 0] / 32768
    paths = tuple(tmp_path / name for name in ("bass.wav", "Drums Mix.wav"))
    for path, stem in zip(paths, audio.T, strict=False):
        soundfile.write(path, stem, RATE_HZ)
    listed = track.Track("song", "train", functools.partial(as_recording, one), paths=paths)
    made = {"made": check.Source([listed], LAYOUT, "made up")}
    assert check.check([], made).findings() == []
    soundfile.write(tmp_path / "mix.wav", audio[:, 0], RATE_HZ)
    assert "mix.wav agrees to" in names(check.check([], made))["mixture differs"].where[0]
    # URMP lists its mixture among a track's files.
    own = tmp_path / "urmp/AuMix_01_Jupiter.wav"
    own.parent.mkdir()
    own.touch()
    assert mixture.find_mixture([own.with_name("AuSep_1_vn.wav"), own]) == own


def test_stems_of_which_some_are_left_out_are_not_compared_with_the_mixture(tmp_path, capsys):
    rng = np.random.default_rng(0)
    parts = {name: rng.uniform(-0.2, 0.2, 8000) for name in ("vocals", "drums", "bass")}
    (tmp_path / "source/song").mkdir(parents=True)

    def differs(mixture: np.ndarray, *flags: str) -> bool:
        for name, samples in {**parts, "mixture": mixture}.items():
            soundfile.write(tmp_path / f"source/song/{name}.wav", samples, 8000)
        call = ["--check", "--dataset=stems_coherent", f"--source={tmp_path / 'source'}"]
        call += [f"--output={tmp_path}", "--processes=1", "--sample_rate_hz=8000"]
        prepare.main([*call, "--hop_samples=80", "--record_seconds=1", *flags])
        return "mixture differs" in capsys.readouterr().out

    whole = np.sum([*parts.values()], axis=0)
    assert not differs(whole)
    assert not differs(whole, "--stems=vocals,low=bass+drums")
    assert not differs(whole, "--stems=vocals,bass")
    assert differs(parts["vocals"])
    assert differs(parts["vocals"], "--stems=vocals,low=bass+drums")


@pytest.mark.parametrize(
    ("count", "record_seconds", "expected"),
    [
        (1, 12, [0]),
        (3, 12, [1]),
        (4, 10, [2]),
        (2, 30, [1]),
        (4, 2, [0, 1, 2, 3]),
        (9, 4, [3, 4, 5]),
        (7, 2, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_labels_are_compared_in_about_12_seconds_around_the_middle(count, record_seconds, expected):
    layout = dataclasses.replace(LAYOUT, record_samples=record_seconds * RATE_HZ)
    assert list(facts.compared_records(count, layout)) == expected


def test_labels_are_judged_in_short_records_too(tmp_path):
    layout = dataclasses.replace(LAYOUT, record_samples=2 * RATE_HZ // 5)
    tracks = songs()
    change("f0_hz", lambda f0_hz: f0_hz * np.float32(2**0.5))(tracks["train"][1])
    listed = [
        track.Track(one["track"], split, functools.partial(as_recording, one))
        for split, found in tracks.items()
        for one in found
    ]
    report = check.check([], {"made": check.Source(listed, layout, "made up")})
    prepared = look(write(tmp_path / "made", cut(tracks, layout), layout=layout))
    for found in (names(report), names(prepared)):
        assert found.keys() == {"labels do not fit"}
        assert found["labels do not fit"].where[0].startswith("train_1")


def test_every_kind_of_finding_is_planted_here():
    tests = pathlib.Path(__file__).parent.glob("test_*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in tests)
    assert not [name for name in KINDS if f'"{name}"' not in text]
