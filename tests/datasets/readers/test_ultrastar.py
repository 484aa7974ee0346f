"""UltraStar songs: labels where the sound is, octaves and times by ear, borders and notes without
a pitch.
"""

import json

import numpy as np
import pytest
import soundfile
from made_copies.ultrastar import BEAT_S, GAP_S, NOTES, sing, text_of, write_song

from majl_jax.datasets import alignment, records, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS, ultrastar
from majl_jax.datasets.song_text import Sung
from majl_jax.datasets.track import BadTrack
from majl_jax.prepare import __main__ as prepare

GRID = Grid(16000, 320)


def load_only(folder, **options):
    (one,) = ultrastar.tracks(str(folder), grid=GRID, **options)
    recording = one.load()
    track.check(recording)
    return recording


def hz(midi: float) -> float:
    return 440 * 2 ** ((midi - 69) / 12)


def test_labels_lie_at_the_notes_and_borders_are_unknown(tmp_path):
    recording = load_only(write_song(tmp_path), octave="written", margin_s=0.04)
    assert recording.stems == ("accompaniment", "voice") == READERS["ultrastar"].stems
    assert not recording.has_stems.any() and not recording.audio[:, 1].any()
    assert not recording.has_pitch[:, 0].any() and recording.remarks == ()
    expected, known = np.zeros(100), np.ones(100, bool)
    for _, begin, length, pitch in NOTES:
        first = round((GAP_S + begin * BEAT_S) / 0.02)
        last = round((GAP_S + (begin + length) * BEAT_S) / 0.02)
        expected[first:last] = hz(60 + pitch)
        for border in (first, last):
            known[border - 2 : border + 2] = False
    np.testing.assert_array_equal(recording.has_pitch[:, 1], known)
    np.testing.assert_allclose(recording.f0_hz[:, 1], np.where(known, expected, 0), rtol=1e-5)
    sounding = np.abs(recording.audio[:, 0, 0]).reshape(100, 320).max(1) > 0.01
    np.testing.assert_array_equal(sounding[known], expected[known] > 0)
    assert [len(notes) for notes in recording.notes] == [0, 3]


def test_outside_of_what_the_text_tells_nothing_is_a_label(tmp_path):
    """Tags START, in s, and END, in ms."""
    write_song(tmp_path, text_of(START="0.5", END="1000"))
    recording = load_only(tmp_path, octave="written", margin_s=0.0)
    assert np.flatnonzero(recording.has_pitch[:, 1]).tolist() == list(range(25, 51))
    assert not recording.f0_hz[:25].any() and not recording.f0_hz[51:].any()


@pytest.mark.parametrize("end", ["0", "-1", "0,0"])
def test_an_end_of_nothing_is_none(tmp_path, end):
    write_song(tmp_path, text_of(END=end))
    assert load_only(tmp_path, octave="written", margin_s=0.0).has_pitch[:, 1].all()


@pytest.mark.parametrize(
    ("tags", "words"),
    [({"VERSION": "2.0.0"}, "VERSION is 2.0.0; expected 1.x"), ({"END": "x"}, "END is 'x'")],
)
def test_tags_of_another_meaning_are_refused(tmp_path, tags, words):
    write_song(tmp_path, text_of(**tags))
    (one,) = ultrastar.tracks(str(tmp_path), grid=GRID, octave="written")
    with pytest.raises(BadTrack, match=words):
        one.load()


def test_a_margin_is_never_less_than_it_says():
    """A frame 30 ms from a border, at hops of 20 ms."""
    _, known = frames_of(Sung(0.2, 0.4, 69, 1), margin_s=0.03)
    assert np.flatnonzero(~known).tolist() == [8, 9, 10, 11]


def frames_of(*notes: Sung, margin_s: float = 0.0):
    return ultrastar.frames_of(notes, frames=20, margin_s=margin_s, grid=GRID)


def test_without_a_margin_all_frames_are_labels():
    f0_hz, known = frames_of(Sung(0.1, 0.2, 69, 1))
    assert known.all() and np.flatnonzero(f0_hz).tolist() == [5, 6, 7, 8, 9]


def test_a_note_repeated_at_once_has_no_border_another_one_has():
    _, known = frames_of(Sung(0.0, 0.2, 69, 1), Sung(0.2, 0.4, 69, 1), margin_s=0.02)
    assert known.all()
    _, known = frames_of(Sung(0.0, 0.2, 69, 1), Sung(0.2, 0.4, 70, 1), margin_s=0.02)
    assert np.flatnonzero(~known).tolist() == [9, 10]


def test_notes_without_a_pitch_are_unknown():
    f0_hz, known = frames_of(Sung(0.1, 0.2, None, 1), Sung(0.3, 0.4, 69, 1))
    assert np.flatnonzero(~known).tolist() == [5, 6, 7, 8, 9]
    assert np.flatnonzero(f0_hz).tolist() == [15, 16, 17, 18, 19]


def test_two_players_are_known_where_they_sing_the_same_or_one_is_silent():
    one, other = Sung(0.0, 0.2, 69, 1), Sung(0.1, 0.3, 76, 2)
    f0_hz, known = frames_of(one, other)
    assert np.flatnonzero(~known).tolist() == [5, 6, 7, 8, 9]
    assert f0_hz[4] == pytest.approx(hz(69)) and f0_hz[10] == pytest.approx(hz(76))
    assert frames_of(one, other._replace(midi=69))[1].all()
    # A pitch beside two that differ makes it no better.
    assert not frames_of(one, other, Sung(0.1, 0.2, 69, 3))[1][5:10].any()


LONG = [(":", 4 * n, 3, (0, 4, 7, 5, 2)[n % 5]) for n in range(12)]


@pytest.mark.parametrize(("octave", "late_s"), [(-1, 0.0), (0, 0.06), (1, -0.08)])
def test_the_octave_and_the_time_are_heard(tmp_path, octave, late_s):
    text = text_of(LONG, GAP=f"{1000 * (GAP_S - late_s):.0f}")
    write_song(tmp_path, text)
    sing(tmp_path / "one.wav", LONG, octave=octave, seconds=6)
    recording = load_only(tmp_path)
    (remark,) = recording.remarks
    assert f"octaves moved by {octave:+d} (12 notes), times by {late_s:+.2f} s" in remark
    for _, begin, length, pitch in LONG:
        middle = round((GAP_S + (begin + length / 2) * BEAT_S) / 0.02)
        assert recording.f0_hz[middle, 1] == pytest.approx(hz(60 + pitch + 12 * octave))
    moved = load_only(tmp_path, octave=str(octave))
    assert moved.f0_hz.max() == pytest.approx(recording.f0_hz.max())
    np.testing.assert_allclose(
        moved.notes[1][:, 0], recording.notes[1][:, 0] - late_s, rtol=0, atol=1e-6
    )


def test_a_section_in_another_octave_is_heard_a_few_notes_are_not(tmp_path):
    notes = np.array([(0.3 * n, 0.3 * n + 0.25, hz(60 + n % 5)) for n in range(40)])
    times_s = np.arange(int(12.5 * 16000)) / 16000
    true = np.where(np.arange(40) < 20, 0, -1)
    true[5] = true[30] = 1
    audio = np.zeros(len(times_s))
    for (onset_s, offset_s, f0_hz), octave in zip(notes, true, strict=True):
        sounding = (times_s >= onset_s) & (times_s < offset_s)
        for h in range(1, 9):
            audio += sounding / h * np.sin(2 * np.pi * h * f0_hz * 2.0**octave * times_s)
    heard = alignment.hear(audio, notes)
    assert heard.octaves.tolist() == [0] * 20 + [-1] * 20
    assert heard.offset_s == 0 and heard.share == pytest.approx(38 / 40) and heard.clear


def test_notes_of_another_song_are_refused_unless_they_are_taken_as_written(tmp_path):
    write_song(tmp_path, text_of((":", 4 * n, 3, 7 * n % 12) for n in range(60)))
    noise = np.random.default_rng(0).normal(0, 0.1, 25 * 16000)
    soundfile.write(tmp_path / "one.wav", noise, 16000)
    with pytest.raises(BadTrack, match=r"only \d+% of the notes of player 1 are heard in one oct"):
        load_only(tmp_path)
    assert load_only(tmp_path, octave="written").f0_hz.any()


def test_players_have_octaves_of_their_own(tmp_path):
    low = [(kind, begin, length, pitch) for kind, begin, length, pitch in LONG[:6]]
    text = text_of([]).replace(
        "E\n",
        "P1\n"
        + "".join(f": {b} {n} {p} a\n" for _, b, n, p in low)
        + "P2\n"
        + "".join(f": {b} {n} {p} a\n" for _, b, n, p in LONG[6:])
        + "F 60 4 0 oh\nE\n",
    )
    write_song(tmp_path, text)
    both = sing(tmp_path / "two.wav", LONG[6:], octave=0, seconds=7)
    first = soundfile.read(sing(tmp_path / "three.wav", low, octave=-1, seconds=7))[0]
    soundfile.write(tmp_path / "one.wav", soundfile.read(both)[0] + first, 44100)
    recording = load_only(tmp_path)
    assert ["player 1: octaves moved by -1" in recording.remarks[0]] == [True]
    assert "player 2: octaves moved by +0" in recording.remarks[1]


@pytest.mark.parametrize(
    ("tags", "seconds", "message"),
    [
        ({"GAP": "-400"}, 2.0, r"its first note begins at -0\.40 s; expected 0 s or later"),
        ({"GAP": "9000"}, 2.0, r"2\.0 s long, but song\.txt has a note until 10\.1 s"),
        ({"BPM": "x"}, 2.0, "BPM is 'x'"),
    ],
)
def test_bad_songs_are_refused_when_they_load(tmp_path, tags, seconds, message):
    write_song(tmp_path, text_of(**tags))
    with pytest.raises(BadTrack, match=message):
        load_only(tmp_path, octave="written")


def test_a_pitch_out_of_range_is_refused(tmp_path):
    write_song(tmp_path, text_of([(":", 0, 4, 60)]))
    with pytest.raises(BadTrack, match=r"a note at 0\.30 s is 60 semitones from C4"):
        load_only(tmp_path, octave="written")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"octave": "low"}, "octave is 'low'; expected heard, written, or a number"),
        ({"margin_s": -1.0}, "margin_s is -1.0; expected 0"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        ultrastar.tracks(str(write_song(tmp_path)), grid=GRID, **options)


def test_all_songs_of_an_artist_are_in_one_split_and_what_lacks_audio_is_left_out(tmp_path):
    for number in range(20):
        write_song(tmp_path / f"{number}", text_of(ARTIST=f"artist {max(number - 8, 0)}"))
    write_song(tmp_path / "lost", text_of(MP3="gone.mp3"))
    again = tmp_path / "7" / "song (duet).txt"
    again.write_text(text_of())
    found = ultrastar.tracks(str(tmp_path), grid=GRID)
    assert len(found) == 22
    left_out = {one.id: one.left_out for one in found if one.left_out}
    assert left_out == {"lost/song": ultrastar.NO_AUDIO, "7/song (duet)": ultrastar.SECOND_TEXT}
    used = [one for one in found if not one.left_out]
    splits = {}
    for one in used:
        splits.setdefault(one.group, set()).add(one.split)
    assert all(len(names) == 1 for names in splits.values()) and splits["artist 0"] == {"train"}
    counts = {name: sum(one.split == name for one in used) for name in ("train", "valid", "test")}
    assert counts == {"train": 16, "valid": 2, "test": 2}
    with pytest.raises(BadTrack, match=r"lost/song\.txt: no audio: the file that its tag"):
        next(one for one in found if one.left_out == ultrastar.NO_AUDIO).load()


def test_all_spellings_of_an_artist_are_in_one_split(tmp_path):
    spelt = ["Beyonc\u00e9", "beyonce\u0301", " BEYONC\u00c9", "Beyonc\u00e9 "]
    for number in range(30):
        artist = spelt[number % 4] if number < 16 else f"artist  {number}"
        write_song(tmp_path / f"{number}", text_of(ARTIST=artist))
    found = ultrastar.tracks(str(tmp_path), grid=GRID)
    groups = {one.group for one in found[:16]}
    # The first stands for them: where there is one spelling only, splits are drawn by it.
    assert groups == {"Beyonc\u00e9"} and found[20].group == "artist  20"
    assert len({one.split for one in found[:16]}) == 1
    assert {one.split for one in found} == {"train", "valid", "test"}


def test_prepare_says_what_was_heard_and_that_octaves_are_not_attested(tmp_path, capsys):
    write_song(tmp_path / "songs", text_of(LONG))
    sing(tmp_path / "songs/one.wav", LONG, octave=-1, seconds=6)
    flags = [f"--source={tmp_path / 'songs'}", f"--output={tmp_path / 'out'}", "--processes=1"]
    flags += ["--record_seconds=2", "--file_format=array_record"]
    assert prepare.main(["--dataset=ultrastar", *flags]) == 0
    folder = tmp_path / "out/ultrastar"
    report = json.loads((folder / "report.json").read_text())
    assert "octaves moved by -1 (12 notes)" in report["remarks"]["song"][0]
    prepared = records.open_prepared(folder)
    assert prepared.layout.octave_known is False
    assert prepare.main(["--dataset=ultrastar", *flags]) == 0  # the same again: left alone
    assert prepare.main(["--dataset=ultrastar", *flags, "--octave=written"]) == 1
    assert "octave= then, written now" in capsys.readouterr().err


def test_flags_of_a_reader_are_refused_with_other_sets(capsys):
    for flag in ("--octave=written", "--margin_s=0.1"):
        with pytest.raises(SystemExit):
            prepare.parse_arguments(["--dataset=chorales", flag])
        assert f"{flag.partition('=')[0]} is for ultrastar, not for chorales" in (
            capsys.readouterr().err
        )
