"""Song texts of UltraStar and the games like it: tags, then notes in quarter beats.

Read as "The UltraStar File Format" describes it (repository UltraStar-Deluxe/format), unversioned
and version 1 (later ones, whose BPM means something else, are refused), and what older editors
wrote: texts in code pages, decimal commas, relative beats, changes of tempo.
"""

import dataclasses
import math
import pathlib
import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from majl_jax.datasets import source_files
from majl_jax.datasets.track import BadTrack

BEATS_PER_BEAT = 4  # of the tag BPM: the beats of notes are quarters of its beats
MIDDLE_C_MIDI = 60  # a pitch of 0
WITH_PITCH = ":*"
CODE_PAGES = {"CP1250": "cp1250", "CP1252": "cp1252", "UTF8": "utf-8", "UTF-8": "utf-8"}
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
EXPECTED = 'expected a note (": START LENGTH PITCH TEXT"), "- START", "P1", "B START BPM" or "E"'
_OTHER = 3
_NOTE = re.compile(r"(\S)\s*(-?\d+)\s+(-?\d+)\s+(-?\d+)(?:\s.*)?", re.ASCII | re.DOTALL)
_PHRASE = re.compile(r"-\s*(-?\d+)(?:\s+(-?\d+))?\s*", re.ASCII)
_PLAYER = re.compile(r"P\s*(\d)\s*", re.ASCII)
_TEMPO = re.compile(r"B\s*(-?\d+(?:[.,]\d+)?)\s+(\d+(?:[.,]\d+)?)\s*", re.ASCII)


class Sung(NamedTuple):
    """A note of a song text."""

    onset_s: float
    offset_s: float
    midi: int | None  # as it is written, with 0 = C4; None of rap and of freestyle
    player: int  # from 1


@dataclasses.dataclass(frozen=True)
class Lines:
    """A song text: its tags, by names in capitals, and the lines of its body by their numbers."""

    path: pathlib.Path
    tags: Mapping[str, str]
    body: tuple[tuple[int, str], ...]

    @property
    def is_song(self) -> bool:
        """Whether it is one: other texts, as licences, have no tag BPM."""
        return "BPM" in self.tags


def read(path: pathlib.Path) -> Lines:
    """The tags and the lines after them, up to the line E."""
    tags, body = {}, []
    for number, line in enumerate(re.split("\r\n|\r|\n", decode(path.read_bytes())), 1):
        line = line.strip(" \t\ufeff")
        if line == "E":
            break
        if line.startswith("#"):
            name, _, value = line[1:].partition(":")
            if value.strip():
                tags[name.strip().upper()] = value.strip()
        elif line:
            body.append((number, line))
    return Lines(path, tags, tuple(body))


def decode(content: bytes) -> str:
    """The text: by its byte order mark, else the tag ENCODING, else UTF-8 where it is, else
    CP1252.
    """
    for mark, name in MARKS.items():
        if content.startswith(mark):
            return content.decode(name, errors="replace")
    said = re.search(rb"^[ \t]*#[ \t]*ENCODING[ \t]*:[ \t]*([\w-]+)", content, re.I | re.M)
    named = CODE_PAGES.get(said[1].decode("ascii", "replace").upper()) if said else None
    for name in (named, "utf-8"):
        if name:
            try:
                return content.decode(name)
            except UnicodeDecodeError:
                continue
    return content.decode("cp1252", errors="replace")


def named_file(lines: Lines, *tags: str) -> pathlib.Path | None:
    """The file beside the text that the first of these tags names which does, in any case or, of
    audio, with another suffix; None where it is not there.
    """
    name = next((lines.tags[tag] for tag in tags if tag in lines.tags), "")
    wanted = pathlib.PurePosixPath(name.replace("\\", "/"))
    if not name or wanted.is_absolute() or ".." in wanted.parts:
        return None
    place = lines.path.parent
    for part in wanted.parts:
        if not place.is_dir():
            return None
        inside = source_files.visible(place, "*")
        ranked = sorted((_unlike(one.name, part), number) for number, one in enumerate(inside))
        if not ranked or ranked[0][0] == _OTHER:
            return None
        place = inside[ranked[0][1]]
    return place if place.is_file() else None


def _unlike(name: str, wanted: str) -> int:
    """How unlike two names are: 0 the same, `_OTHER` another file.

    Macs write letters with accents in two characters, Windows does not know capitals, and audio is
    converted.
    """
    one, other = (unicodedata.normalize("NFC", text).casefold() for text in (name, wanted))
    stems = [text.rpartition(".") for text in (one, other)]
    same_stem = stems[0][0] == stems[1][0] != "" and f".{stems[0][2]}" in source_files.SUFFIXES
    return 0 if name == wanted else 1 if one == other else 2 if same_stem else _OTHER


def told_range_s(lines: Lines) -> tuple[float, float]:
    """Between which times of the audio the text says what is sung: its tags START, in s, and END,
    in ms. An END of 0 is none.
    """
    end_ms = _number(lines, "END", math.inf)
    return _number(lines, "START", 0.0), end_ms / 1000 if end_ms > 0 else math.inf


def _number(lines: Lines, name: str, default: float) -> float:
    value = lines.tags.get(name)
    try:
        return default if value is None else _decimal(value)
    except ValueError:
        raise BadTrack(
            f"{lines.path}: {name} is {value!r:.40}; expected a number, as 8260 or 266,6"
        ) from None


def notes(lines: Lines) -> list[Sung]:
    """The notes of all players in order of time; BadTrack, with the line, for what cannot be read.

    t = GAP / 1000 + 60 beat / (4 BPM). With the tag RELATIVE, beats count from the end of the
    phrase before, each player's for itself. Notes without length are passed over.
    """
    if (version := lines.tags.get("VERSION", "1")).partition(".")[0] not in ("0", "1"):
        raise BadTrack(f"{lines.path}: VERSION is {version:.40}; expected 1.x, or none")
    relative = lines.tags.get("RELATIVE", "").lower() in ("yes", "true", "1")
    tempo = _Tempo(lines)
    begins: dict[int, int] = {}  # of the phrase at hand, by player
    player, found = 1, []
    for number, line in lines.body:
        if match := _PLAYER.fullmatch(line):
            player = int(match[1])
        elif match := _PHRASE.fullmatch(line):
            if relative:
                begins[player] = begins.get(player, 0) + int(match[2] or match[1])
        elif match := _TEMPO.fullmatch(line):
            tempo.change(begins.get(player, 0) + _decimal(match[1]), _decimal(match[2]))
        elif match := _NOTE.fullmatch(line):
            kind, (start, length, pitch) = match[1], map(int, match.groups()[1:])
            if length < 0:
                raise BadTrack(f"{lines.path}, line {number}: {line[:40]!r} ends before it begins")
            start += begins.get(player, 0)
            found.append((start, start + length, pitch if kind in WITH_PITCH else None, player))
        else:
            raise BadTrack(f"{lines.path}, line {number}: {line[:40]!r}; {EXPECTED}")
    sung = [
        Sung(tempo.seconds(start), tempo.seconds(end), _midi(pitch), of)
        for start, end, pitch, of in found
        if end > start
    ]
    if not sung:
        raise BadTrack(f"{lines.path}: holds no notes; {EXPECTED}")
    return sorted(sung, key=lambda note: (note.onset_s, note.player))


def _midi(pitch: int | None) -> int | None:
    return None if pitch is None else MIDDLE_C_MIDI + pitch


def _decimal(text: str) -> float:
    return float(text.replace(",", "."))


class _Tempo:
    """The times of beats, which may change their speed."""

    def __init__(self, lines: Lines) -> None:
        self._path = lines.path
        self._gap_s = _number(lines, "GAP", 0.0) / 1000
        if not math.isfinite(self._gap_s):
            raise BadTrack(f"{self._path}: GAP is {self._gap_s}; expected a time in ms")
        self._changes = [(0.0, self._beat_s(_number(lines, "BPM", 0.0)))]

    def change(self, beat: float, bpm: float) -> None:
        """From this beat on it is another tempo."""
        changes = [*self._changes, (max(beat, 0.0), self._beat_s(bpm))]
        self._changes = sorted(changes, key=lambda change: change[0])

    def seconds(self, beat: int) -> float:
        """When a beat is, from the begin of the audio."""
        ends = [*(start for start, _ in self._changes[1:]), math.inf]
        beats = [
            min(beat, end) - start for (start, _), end in zip(self._changes, ends, strict=True)
        ]
        # Before the first beat its tempo holds as well.
        beats = [beats[0], *(max(number, 0.0) for number in beats[1:])]
        of_each = zip(beats, self._changes, strict=True)
        return self._gap_s + sum(number * beat_s for number, (_, beat_s) in of_each)

    def _beat_s(self, bpm: float) -> float:
        if not 0 < bpm < math.inf:
            raise BadTrack(f"{self._path}: BPM is {bpm:g}; expected more than 0")
        return 60 / (BEATS_PER_BEAT * bpm)
