"""`drums`: 24 generated grooves for a drum kit, rendered; percussion alone, without pitch labels.

`drum_kit` has the same grooves with the parts of the kit as stems.
"""

import dataclasses
import functools
import io
import zlib

import numpy as np

from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.synthesis import rendering
from majl_jax.datasets.track import Recording, Track, no_pitch

STEMS = ("drums",)
KIT_STEMS = ("kick", "snare", "cymbals", "percussion")
VOICES = 1
VIEWS = ("full", "kit")
SPLIT_LIST = SPLITS_FOLDER / "drums.txt"
TEMPO_RANGE = (60.0, 180.0)  # quarter notes per minute
GROOVE_S = 18.5
TAIL_S = 1.5
PEAK = 0.7
STROKE_S = 0.1  # from key down to key up; a drum sounds on regardless
SWING = 2 / 3  # place of the second eighth note within a quarter note
# General MIDI keys of the drum channel
KICK, STICK, SNARE, CLAP, CLOSED_HAT, PEDAL_HAT, OPEN_HAT = 36, 37, 38, 39, 42, 44, 46
LOW_TOM, MID_TOM, HIGH_TOM, CRASH, RIDE, TAMBOURINE, COWBELL = 45, 47, 50, 49, 51, 54, 56
HIGH_CONGA, LOW_CONGA, CABASA, CLAVES = 63, 64, 69, 75
FILL_KEYS = (SNARE, HIGH_TOM, MID_TOM, LOW_TOM)
# Keys of the parts of a kit; all others are percussion.
KIT_KEYS = ((KICK,), (STICK, SNARE), (CLOSED_HAT, PEDAL_HAT, OPEN_HAT, CRASH, RIDE))
# A bar of each style: key, velocity, and the strokes at sixteenth notes 0 to 15, or so many of
# them.
Pattern = tuple[tuple[int, int, tuple[int, ...]], ...]
PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "rock": (
        (
            (CLOSED_HAT, 75, tuple(range(0, 16, 2))),
            (KICK, 105, (0, 8, 10)),
            (SNARE, 105, (4, 12)),
        ),
        (
            (RIDE, 80, tuple(range(0, 16, 4))),
            (KICK, 110, (0, 3, 6, 10)),
            (SNARE, 110, (4, 12)),
            (OPEN_HAT, 80, (14,)),
        ),
        (
            (CLOSED_HAT, 65, tuple(range(16))),
            (KICK, 105, (0, 7, 8)),
            (SNARE, 100, (4, 12)),
            (CLAP, 80, (12,)),
        ),
    ),
    "latin": (
        (
            (CLAVES, 85, (0, 3, 6, 10, 12)),
            (KICK, 95, (0, 6, 8, 14)),
            (CABASA, 65, tuple(range(0, 16, 2))),
            (HIGH_CONGA, 85, (4, 12)),
            (LOW_CONGA, 85, (6, 7, 14, 15)),
        ),
        (
            (COWBELL, 75, (0, 4, 8, 12)),
            (STICK, 90, (0, 3, 6, 10, 13)),
            (KICK, 95, (0, 3, 8, 11)),
            (CLOSED_HAT, 60, tuple(range(0, 16, 2))),
        ),
        (
            (RIDE, 75, (0, 2, 3, 6, 8, 10, 11, 14)),
            (KICK, 90, (0, 3, 4, 7, 8, 11, 12, 15)),
            (PEDAL_HAT, 70, (4, 12)),
            (TAMBOURINE, 65, (2, 6, 10, 14)),
        ),
    ),
    "swing": (
        ((RIDE, 90, (0, 4, 6, 8, 12, 14)), (PEDAL_HAT, 80, (4, 12)), (KICK, 60, (0, 8))),
        (
            (RIDE, 85, (0, 4, 6, 8, 12, 14)),
            (PEDAL_HAT, 80, (4, 12)),
            (SNARE, 50, (6, 10)),
            (KICK, 70, (0, 14)),
        ),
        ((CLOSED_HAT, 80, (0, 4, 6, 8, 12, 14)), (SNARE, 75, (4, 12)), (KICK, 80, (0, 6, 8))),
    ),
    "sparse": (
        ((KICK, 95, (0,)), (SNARE, 90, (8,))),
        ((KICK, 90, (0, 10)), (STICK, 85, (8,)), (CLOSED_HAT, 55, (4, 12))),
        ((LOW_TOM, 90, (0, 6)), (RIDE, 70, (8,))),
    ),
}


@dataclasses.dataclass(frozen=True)
class Strokes:
    """When which key of the drum channel is struck; `velocities` from 1 to 127."""

    onsets_s: np.ndarray
    keys: np.ndarray
    velocities: np.ndarray


def tracks(
    source: str | None = None, *, grid: Grid, seed: int = 0, view: str = "full"
) -> list[Track]:
    """The grooves, about 20 s each, as one stem ("full") or by the parts of the kit ("kit")."""
    if source is not None:
        raise ValueError(f"drums are generated; leave out --source (got {source!r})")
    if view not in VIEWS:
        raise ValueError(f"view must be 'full' or 'kit', got {view!r}")
    return [
        Track(
            id=name,
            split=split,
            group=name,
            seconds=GROOVE_S + TAIL_S,
            load=functools.partial(
                load,
                name,
                style=style,
                kit=int(kit),
                grid=grid,
                seed=seed,
                view=view,
            ),
        )
        for name, style, kit, split in read_split(SPLIT_LIST)
    ]


def load(
    name: str, *, style: str, kit: int, grid: Grid, seed: int, view: str = "full"
) -> Recording:
    """Draws and renders one groove; every view has the same, and the same seed the same samples.

    Args:
        name: of the groove; with the seed it decides what is drawn.
        style: one of PATTERNS.
        kit: program of the drum channel.
        grid: of audio and labels.
        seed: of what is drawn.
        view: "full", one stem, or "kit", by the parts of the kit.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    strokes = play(style, rng)
    parts, stems = (by_part(strokes), KIT_STEMS) if view == "kit" else ((strokes,), STEMS)
    samples = grid.frames_over(GROOVE_S + TAIL_S) * grid.hop_samples
    audio = np.zeros((samples, len(stems), 1), np.float32)
    for stem, part in enumerate(parts):
        if len(part.keys):  # not every style uses the whole kit
            midi = midi_bytes(part, kit=kit, duration_s=grid.seconds(samples))
            audio[:, stem, 0] = rendering.render(
                midi, sample_rate_hz=grid.sample_rate_hz, samples=samples
            )
    peak = max(np.abs(audio).max(), np.abs(audio.sum(axis=1)).max())
    f0_hz, has_pitch = no_pitch(samples, stems=len(stems), grid=grid, voices=VOICES)
    return Recording(
        audio=audio * np.float32(PEAK / peak),
        stems=stems,
        has_stems=np.ones(len(stems), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
        voices=VOICES,
    )


def by_part(strokes: Strokes) -> tuple[Strokes, ...]:
    """The strokes of each of `KIT_STEMS`; together they are all strokes."""
    of_part = [np.isin(strokes.keys, keys) for keys in KIT_KEYS]
    of_part.append(~np.any(of_part, axis=0))
    return tuple(
        Strokes(strokes.onsets_s[its], strokes.keys[its], strokes.velocities[its])
        for its in of_part
    )


def play(style: str, rng: np.random.Generator) -> Strokes:
    """Draws a groove: tempo, bars of one pattern with left-out and ghost strokes, fills,
    dynamics.
    """
    if style not in PATTERNS:
        raise ValueError(f"style must be one of {sorted(PATTERNS)}, got {style!r}")
    sixteenth_s = 15 / rng.uniform(*TEMPO_RANGE)
    pattern = PATTERNS[style][rng.integers(len(PATTERNS[style]))]
    bars_per_fill = int(rng.choice((2, 4, 8)))
    loudness = rng.uniform(0.75, 1.1)
    start_s = rng.uniform(0.1, 0.5)
    strokes = []
    for bar in range(int(np.ceil(GROOVE_S / (16 * sixteenth_s)))):
        bar_s = start_s + 16 * bar * sixteenth_s
        for key, velocity, sixteenth in draw_bar(pattern, (bar + 1) % bars_per_fill == 0, rng):
            late = 4 * (SWING - 0.5) if style == "swing" and sixteenth % 4 == 2 else 0.0
            onset_s = bar_s + (sixteenth + late) * sixteenth_s + rng.normal(0, 0.004)
            level = round(velocity * loudness * rng.normal(1, 0.1))
            strokes.append((max(onset_s, 0.0), key, int(np.clip(level, 15, 127))))
    strokes = sorted(one for one in strokes if one[0] < GROOVE_S)
    onsets_s, keys, velocities = zip(*strokes, strict=True)
    return Strokes(np.asarray(onsets_s), np.asarray(keys), np.asarray(velocities))


def draw_bar(
    pattern: Pattern, with_fill: bool, rng: np.random.Generator
) -> list[tuple[int, int, int]]:
    """Key, velocity and sixteenth note of the strokes of one bar; a fill takes its second half."""
    last = 8 if with_fill else 16
    strokes = [
        (key, velocity, sixteenth)
        for key, velocity, places in pattern
        for sixteenth in places
        if sixteenth < last and (sixteenth == 0 or rng.random() < 0.94)
    ]
    strokes += [(SNARE, 40, place) for place in range(1, last, 2) if rng.random() < 0.04]
    if with_fill:
        drums = np.sort(rng.choice(len(FILL_KEYS), 8))
        strokes += [
            (FILL_KEYS[drum], 80 + 4 * place, 8 + place)
            for place, drum in enumerate(drums)
            if rng.random() < 0.8
        ]
        strokes.append((CRASH, 100, 15))
    return strokes


def midi_bytes(strokes: Strokes, *, kit: int, duration_s: float) -> bytes:
    """Strokes on the drum channel as a MIDI file that lasts `duration_s` seconds."""
    import pretty_midi

    part = pretty_midi.Instrument(kit, is_drum=True)
    for onset_s, key, velocity in zip(
        strokes.onsets_s, strokes.keys, strokes.velocities, strict=True
    ):
        off_s = float(onset_s) + STROKE_S
        part.notes.append(pretty_midi.Note(int(velocity), int(key), float(onset_s), off_s))
    # The renderer stops at the last event: a late one keeps the end of the last stroke.
    for time_s in (0.0, duration_s):
        part.control_changes.append(
            pretty_midi.ControlChange(rendering.CONTROL_VOLUME, 120, time_s)
        )
    score = pretty_midi.PrettyMIDI(resolution=rendering.TICKS_PER_QUARTER)
    score.instruments.append(part)
    file = io.BytesIO()
    score.write(file)
    return file.getvalue()
