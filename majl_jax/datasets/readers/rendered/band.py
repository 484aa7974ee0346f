"""`band`: songs of the game Freedoom (MIDI, in the package vizdoom) as bass, drums and other,
rendered.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import io
import pathlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.synthesis import rendering
from majl_jax.datasets.track import BadTrack, Recording, Track, no_pitch

STEMS = ("bass", "drums", "other")
VOICES = 0
SPLIT_LIST = SPLITS_FOLDER / "band.txt"
WADS = ("freedoom1.wad", "freedoom2.wad")
MUSIC = "D_"  # names of lumps with music begin so
BASS_PROGRAMS = range(32, 40)  # General MIDI, counted from 0
DRUM_CHANNEL = 9
EXCERPT_S = 90.0
TAIL_S = 1.0
LONGEST_S = 3600.0
ACTIVE_S = 4  # a stem counts as playing for so many seconds after a note begins
PEAK = 0.7  # of the mixture or of the loudest stem, whichever is larger
TICKS_PER_S = 2 * rendering.TICKS_PER_QUARTER  # at 120 quarter notes a minute, the default of MIDI
SUSTAIN, ALL_NOTES_OFF = 64, 123  # controls


@dataclasses.dataclass(frozen=True)
class Lump:
    """Where the bytes of one entry of a WAD file lie."""

    path: pathlib.Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Its bytes; raises BadTrack where the file has become shorter."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) != self.size:
            raise BadTrack(f"{self.path}: {self.name} has {len(data)} of {self.size} bytes")
        return data


@dataclasses.dataclass(frozen=True)
class Song:
    """All messages of a MIDI file at their times, which note belongs to which stem, and the end."""

    messages: tuple[tuple[float, str, Any], ...]  # second, stem of a note-on or "", mido.Message
    end_s: float

    def onsets_s(self, stem: str) -> Float[np.ndarray, " note"]:
        """When the notes of a stem begin, in seconds."""
        return np.asarray([time_s for time_s, whose, _ in self.messages if whose == stem])


def tracks(source: str | None = None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The songs of the split list, at most 90 s each; nothing is drawn, so every seed gives the
    same.

    `source` is a folder with freedoom1.wad and freedoom2.wad; without it they are those of the
    installed package vizdoom. Songs without bass or drums, and those not in the list, are left
    out.
    """
    del seed
    folder = package_folder() if source is None else pathlib.Path(source)
    listed = {name: (md5, split) for name, md5, split in read_split(SPLIT_LIST)}
    found = []
    for lump in songs([folder / name for name in WADS]):
        md5, split = listed.get(lump.name, ("", f"not in {SPLIT_LIST.name}"))
        reason = "" if split in ("train", "valid", "test") else split.replace("_", " ")
        if not hashlib.md5(lump.read()).hexdigest().startswith(md5):
            reason = f"not the song that {SPLIT_LIST.name} lists: another release of Freedoom"
        load_it = functools.partial(load, lump, grid=grid)
        name = lump.name.removeprefix(MUSIC).lower()
        seconds = EXCERPT_S + TAIL_S
        found.append(Track(name, split, load_it, name, (lump.path,), seconds, reason))
    if all(track.left_out for track in found):
        raise ValueError(f"{folder}: its WAD files have none of the songs in {SPLIT_LIST}")
    return found


def package_folder() -> pathlib.Path:
    """The folder of the installed package vizdoom, found without importing it."""
    spec = importlib.util.find_spec("vizdoom")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The songs of `band` are in the package vizdoom: `pip install --no-deps vizdoom mido`"
        )
    return pathlib.Path(next(iter(spec.submodule_search_locations)))


def songs(paths: Sequence[pathlib.Path]) -> list[Lump]:
    """The music in WAD files, in their order; of lumps with the same bytes the first."""
    distinct = {}
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: `pip install --no-deps vizdoom` brings it")
        for lump in read_directory(path):
            if lump.name.startswith(MUSIC):
                distinct.setdefault(hashlib.md5(lump.read()).digest(), lump)
    return list(distinct.values())


def read_directory(path: pathlib.Path) -> list[Lump]:
    """The entries of a WAD file; raises ValueError where it is not one, or cut off.

    Header: IWAD or PWAD, number of entries and place of their list (int32); an entry: place and
    size (int32), name (8 bytes).
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(12)
        if len(header) < 12 or header[:4] not in (b"IWAD", b"PWAD"):
            raise ValueError(f"{path}: begins with {header[:4]!r}, expected IWAD or PWAD")
        count, start = struct.unpack("<ii", header[4:])
        if count < 0 or start < 0 or start + 16 * count > total:
            raise ValueError(
                f"{path}: {total} bytes long, but its {count} entries begin at byte {start}: is it"
                " cut off?"
            )
        file.seek(start)
        entries = file.read(16 * count)
    lumps = []
    for offset, size, raw in struct.iter_unpack("<ii8s", entries):
        name = raw.split(b"\0")[0].decode("ascii", "replace")
        if size < 0 or offset < 0 or offset + size > total:
            raise ValueError(
                f"{path}: {total} bytes long, but {name} has {size} bytes from byte {offset} on: is"
                " it cut off?"
            )
        lumps.append(Lump(path, name, offset, size))
    return lumps


def load(lump: Lump, *, grid: Grid) -> Recording:
    """Renders the excerpt of a song in which most of it has all stems; always the same samples."""
    song = read_song(lump.read(), name=f"{lump.path}: {lump.name}")
    start_s = densest_start_s([song.onsets_s(stem) for stem in STEMS], song.end_s)
    seconds = min(song.end_s - start_s, EXCERPT_S)
    samples = int((seconds + TAIL_S) * grid.sample_rate_hz)
    audio = np.zeros((samples, len(STEMS), 1), np.float32)
    for number, stem in enumerate(STEMS):
        midi = midi_bytes(song, stem, start_s=start_s, seconds=seconds)
        sound = rendering.render(midi, sample_rate_hz=grid.sample_rate_hz, samples=samples)
        if not sound.any():
            raise BadTrack(f"{lump.path}: {lump.name} has no {stem} from {start_s:.0f} s on")
        audio[:, number, 0] = sound
    peak = max(np.abs(audio).max(), np.abs(audio.sum(axis=1)).max())
    f0_hz, has_pitch = no_pitch(samples, stems=len(STEMS), grid=grid, voices=VOICES)
    return Recording(
        audio=audio * np.float32(PEAK / peak),
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
        voices=VOICES,
    )


def read_song(data: bytes, *, name: str) -> Song:
    """The messages of a MIDI file with a stem for each note: by channel (drums) and program
    (bass).
    """
    if not data.startswith(b"MThd"):
        kind = "in Doom's MUS format" if data.startswith(b"MUS\x1a") else f"{data[:4]!r}"
        raise BadTrack(f"{name} is {kind}, expected a MIDI file (MThd)")
    programs = [0] * 16
    messages, end_s = [], 0.0
    for time_s, message in _messages(data, name):
        stem = ""
        if message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type == "note_on" and message.velocity > 0:
            is_bass = programs[message.channel] in BASS_PROGRAMS
            stem = "bass" if is_bass else "other"
            stem = "drums" if message.channel == DRUM_CHANNEL else stem
        if message.type in ("note_on", "note_off"):
            end_s = time_s
        messages.append((time_s, stem, message))
    return Song(tuple(messages), end_s)


def _messages(data: bytes, name: str) -> Iterator[tuple[float, Any]]:
    """The messages of channels with their times in seconds."""
    import mido

    try:
        midi = mido.MidiFile(file=io.BytesIO(data))
        if midi.type == 2 or midi.ticks_per_beat <= 0:
            raise BadTrack(f"{name}: MIDI type {midi.type} with {midi.ticks_per_beat} ticks")
        time_s = 0.0
        for message in midi:
            time_s += message.time
            if time_s > LONGEST_S:
                raise BadTrack(f"{name} is longer than {LONGEST_S:.0f} s: is it damaged?")
            if hasattr(message, "channel") and not message.is_meta:
                yield time_s, message
    except (EOFError, OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        if isinstance(error, BadTrack):
            raise
        raise BadTrack(f"{name} cannot be read as MIDI: {error!r}") from error


def densest_start_s(onsets_s: Sequence[Float[np.ndarray, " _"]], end_s: float) -> float:
    """The whole second from which on the stems play together for most of `EXCERPT_S`."""
    playing = np.ones(int(end_s) + ACTIVE_S + 1, bool)
    for stem in onsets_s:
        first = np.unique(stem.astype(int))
        its = np.zeros_like(playing)
        its[(first[:, None] + np.arange(ACTIVE_S)).ravel()] = True
        playing &= its
    together = np.concatenate([[0], np.cumsum(playing)])
    starts = np.arange(max(int(end_s - EXCERPT_S), 0) + 1)
    ends = np.minimum(starts + int(EXCERPT_S), len(playing))
    return float(np.argmax(together[ends] - together[starts]))


def midi_bytes(song: Song, stem: str, *, start_s: float, seconds: float) -> bytes:
    """The notes of one stem that begin in an excerpt, with all programs, controls and bends so far.

    Messages keep their order: a bend range, say, is set by four controls one after the other.
    """
    import mido

    part = mido.MidiTrack()
    ticks = 0

    def add(message: mido.Message, time_s: float) -> None:
        nonlocal ticks
        at = max(ticks, round(time_s * TICKS_PER_S))
        part.append(message.copy(time=at - ticks))
        ticks = at

    for time_s, whose, message in song.messages:
        if time_s >= start_s + seconds:
            break
        is_note = message.type in ("note_on", "note_off")
        if (not is_note) or (time_s >= start_s and whose in (stem, "")):
            add(message, max(time_s - start_s, 0.0))
    for control in (SUSTAIN, ALL_NOTES_OFF):
        for channel in range(16):
            stop = mido.Message("control_change", channel=channel, control=control, value=0)
            add(stop, seconds)
    # The renderer stops at the last event: a late one keeps the release of the last note.
    add(mido.Message("control_change", control=SUSTAIN, value=0), seconds + TAIL_S)
    file = io.BytesIO()
    mido.MidiFile(tracks=[part], ticks_per_beat=rendering.TICKS_PER_QUARTER, type=0).save(file=file)
    return file.getvalue()
