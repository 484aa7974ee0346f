"""Texts of songs: every dialect gives the same notes, and what is wrong names its line."""

import pathlib

import pytest
from made_copies.ultrastar import BEAT_S, GAP_S, NOTES, text_of

from majl_jax.datasets import song_text
from majl_jax.datasets.track import BadTrack

EXPECTED = [
    (GAP_S + begin * BEAT_S, GAP_S + (begin + length) * BEAT_S, 60 + pitch)
    for _, begin, length, pitch in NOTES
]


def write(folder: pathlib.Path, text: str | bytes) -> song_text.Lines:
    path = folder / "song.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return song_text.read(path)


def rows(folder: pathlib.Path, text: str | bytes) -> list[tuple]:
    return [note[:3] for note in song_text.notes(write(folder, text))]


PLAIN = text_of()
DIALECTS = {
    "plain": PLAIN,
    "Windows line ends": PLAIN.replace("\n", "\r\n"),
    "old Mac line ends": PLAIN.replace("\n", "\r"),
    "a byte order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "UTF-16": PLAIN.encode("utf-16"),
    "no end": text_of(end=""),
    "words after the end": PLAIN + "made by no one : 1 2 3\n",
    "decimal commas": text_of(BPM="150,00", GAP="300,0"),
    "decimal points": text_of(BPM="150.00", GAP="300.0"),
    "small and spaced tags": PLAIN.replace("#BPM:150", " # bpm : 150 ").replace("#GAP", "#gap"),
    "phrases": PLAIN.replace("* 5", "- 4 5\n* 5").replace(": 9", "-8\n: 9"),
    "no space after the kind, tabs, no text": PLAIN.replace(": 0 4 0 la", ":0\t4 0"),
    "empty lines": PLAIN.replace("\n", "\n \n"),
    "a note without length": PLAIN.replace("* 5", ": 4 0 3 -\n* 5"),
    "another order": text_of(NOTES[::-1]),
    "a separator in a lyric": PLAIN.replace("0 la", "0 l\x0b\x85\u2028a"),
    "twice the tempo from beat 4 on": text_of(
        [NOTES[0], ("*", 6, 6, 2), (":", 14, 4, 7)], BPM="150"
    ).replace("* 6", "B 4 300\n* 6"),
    "relative": text_of([NOTES[0], ("*", 1, 3, 2), (":", 1, 2, 7)], RELATIVE="YES")
    .replace("* 1", "- 4 4\n* 1")
    .replace(": 1", "- 4\n: 1"),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_gives_the_same_notes(tmp_path, dialect):
    found = rows(tmp_path, DIALECTS[dialect])
    assert [row[2] for row in found] == [60, 62, 67]
    for row, expected in zip(found, EXPECTED, strict=True):
        assert row == pytest.approx(expected, abs=1e-9)


def test_relative_phrases_are_absolute_without_the_tag(tmp_path):
    text = text_of([NOTES[0], ("*", 5, 3, 2)]).replace("* 5", "- 4 4\n* 5")
    assert rows(tmp_path, text)[1][0] == pytest.approx(GAP_S + 5 * BEAT_S)
    relative = text.replace("#GAP", "#RELATIVE:yes\n#GAP")
    assert rows(tmp_path, relative)[1][0] == pytest.approx(GAP_S + 9 * BEAT_S)


def test_rap_and_freestyle_have_no_pitch_nor_have_kinds_of_note_to_come(tmp_path):
    kinds = ":*FRGX"
    text = text_of([(kind, 2 * number, 1, 5) for number, kind in enumerate(kinds)])
    assert [row[2] for row in rows(tmp_path, text)] == [65, 65, None, None, None, None]


def test_players_keep_their_own_relative_beats(tmp_path):
    body = "P1\n: 0 2 0 a\n- 4 4\nP 2\n: 1 2 7 b\nP1\n: 0 2 2 c\nP2\n: 9 1 9 d"
    text = text_of([], RELATIVE="yes").replace("E\n", f"{body}\nE\n")
    found = song_text.notes(write(tmp_path, text))
    assert [(note.player, note.midi) for note in found] == [(1, 60), (2, 67), (1, 62), (2, 69)]
    onsets = [round((note.onset_s - GAP_S) / BEAT_S, 6) for note in found]
    assert onsets == [0, 1, 4, 9]


@pytest.mark.parametrize(
    ("tag", "encoding"),
    [("", "utf-8"), ("", "cp1252"), ("CP1252", "cp1252"), ("cp1250", "cp1250"), ("UTF8", "utf-8")],
)
def test_the_encoding_is_that_of_the_tag_or_guessed(tmp_path, tag, encoding):
    title = "Žár" if encoding == "cp1250" else "Größe"
    lines = write(tmp_path, text_of(ENCODING=tag, TITLE=title).encode(encoding))
    assert lines.tags["TITLE"] == title


def test_a_tag_of_the_wrong_encoding_is_no_fault(tmp_path):
    lines = write(tmp_path, text_of(ENCODING="UTF8", TITLE="Größe").encode("cp1252"))
    assert lines.tags["TITLE"] == "Größe"


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("one.mp3", "one.mp3"),
        ("One.MP3", "one.mp3"),
        ("audio/one.ogg", r"Audio\one.ogg"),
        ("Bu\u0308cher.mp3", "B\u00fccher.mp3"),
        ("one.ogg", "one.mp3"),
    ],
)
def test_audio_is_found_in_any_spelling(tmp_path, there, named):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).touch()
    lines = write(tmp_path, text_of(MP3=named))
    assert song_text.named_file(lines, "AUDIO", "MP3") == tmp_path / there


def test_the_exact_name_comes_first_and_the_first_tag(tmp_path):
    for name in ("One.mp3", "one.mp3", "one.ogg", "two.mp3"):
        (tmp_path / name).touch()
    lines = write(tmp_path, text_of(MP3="one.mp3", AUDIO="two.mp3"))
    assert song_text.named_file(lines, "MP3") == tmp_path / "one.mp3"
    assert song_text.named_file(lines, "AUDIO", "MP3") == tmp_path / "two.mp3"


@pytest.mark.parametrize("named", ["../one.mp3", "/etc/passwd", "two.mp3", "", "one.mp3/one.mp3"])
def test_files_elsewhere_are_not_taken(tmp_path, named):
    (tmp_path / "one.mp3").touch()
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs/one.mp3").touch()
    lines = write(tmp_path / "songs", text_of(MP3=named))
    assert song_text.named_file(lines, "AUDIO", "MP3") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN.replace("* 5 3 2 la", "* 5 3"), r"song\.txt, line 7: '\* 5 3'; expected a note"),
        (PLAIN.replace("* 5", "words\n* 5"), "line 7: 'words'; expected a note"),
        (PLAIN.replace("* 5 3", "* 5 -3"), "line 7: .* ends before it begins"),
        (text_of(BPM="fast"), "BPM is 'fast'; expected a number"),
        (text_of(BPM="0"), "BPM is 0; expected more than 0"),
        (text_of(BPM="inf"), "BPM is inf; expected more than 0"),
        (text_of(GAP="nan"), "GAP is nan; expected a time"),
        (text_of([]), "holds no notes"),
        (PLAIN.replace("* 5", "B 3 0\n* 5"), "BPM is 0; expected more than 0"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, message):
    with pytest.raises(BadTrack, match=message):
        rows(tmp_path, text)
