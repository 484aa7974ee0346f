"""Which stem each sample of a tracker module belongs to: by its name, where that is one, and by
what it sounds like, alone, as the module plays it.
"""

import collections
import dataclasses
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from majl_jax.audio import module_files, openmpt, periodicity

BASS, DRUMS, OTHER, UNSURE = "bass", "drums", "other", ""
SAMPLE_RATE_HZ = 22_050
SOUND_S = 2.0
FRAME, HOP = 2048, 512

# The first that fits decides; names that fit none, or two, say nothing.
KICKS = re.compile(r"bass ?-?dr|drum\.bass|bass\.?kick|\bb\.?d\b|bdr", re.I)
NAMES = {
    DRUMS: re.compile(
        r"drum|kick|kich|snar|hi-?hat|hat\b|hats?\d|hht|\bhh\b|\bs\.?d\b|\bsn\b|clap|klap|cymb|crash"
        r"|\bride\b|tom\b|toms\b|tom\d|conga|bongo|tamb|perc|tabla|shaker|rimshot|splash|cowbell"
        r"|kettle|timbale|beat\b|groove|hicl|hiop|\bhi ?open",
        re.I,
    ),
    BASS: re.compile(r"bass(?!oon)|\bbas\b|\b303\b|tb-?303|baz\b", re.I),
    OTHER: re.compile(
        r"lead|pad|string|piano|organ|flute|choir|chorus|chord|guitar|brass|sax|trump|bells?\b|vox"
        r"|voice|arp|harp|violin|horn|oboe|clarinet|bassoon|rhodes|marimba|vibe|xylo|min\b|maj\b"
        r"|sus[24]|melody",
        re.I,
    ),
}


@dataclasses.dataclass(frozen=True)
class Use:
    """What a module plays of one sample: how often which (instrument, note), counted from 0."""

    sample: int
    hits: Mapping[tuple[int, int], int]

    @property
    def notes(self) -> Float[np.ndarray, " hit"]:
        """The note of each hit, in no order."""
        notes = [note for _, note in self.hits]
        return np.repeat(np.asarray(notes, np.float64), [*self.hits.values()])

    @property
    def usual(self) -> tuple[int, int]:
        """What is played most often; of several the first."""
        return max(self.hits, key=lambda key: self.hits[key])


@dataclasses.dataclass(frozen=True)
class Sound:
    """A sample as it sounds for `SOUND_S` seconds at its usual note.

    length_s: until 90 % of its energy is over. clarity: of its pitch, the mean by energy.
    pitched: the share of its energy in frames of a clear pitch. f0_hz: median of these frames.
    wander: its standard deviation, semitones. centre_hz: of the spectrum. low, root: its shares
      below 200 Hz, and below 2.5 f0, where a chord has nothing.
    """

    length_s: float
    clarity: float
    pitched: float
    f0_hz: float
    wander: float
    centre_hz: float
    low: float
    root: float
    power: float


def uses(module: openmpt.Module, file: module_files.ModuleFile) -> dict[int, Use]:
    """The samples that the patterns play, in the order of their numbers.

    Patterns are read in their order, each as often as it is listed; jumps are not followed.
    """
    hits: dict[int, collections.Counter[tuple[int, int]]] = collections.defaultdict(
        collections.Counter
    )
    patterns = {number: module.pattern(number) for number in {*module.sequence()}}
    playing = [0] * module.channels
    for number in module.sequence():
        cells = patterns[number]
        for row, channel in zip(*np.nonzero(cells[:, :, :2].any(axis=2)), strict=True):
            note, instrument = (int(value) for value in cells[row, channel, :2])
            playing[channel] = instrument or playing[channel]
            key = playing[channel] - 1, note - 1
            if 1 <= note <= module_files.NOTES and key in file.keys:
                hits[file.keys[key]][key] += 1
    return {
        sample: Use(sample, dict(hits[sample]))
        for sample in sorted(hits)
        if sample < len(file.samples) and file.samples[sample].size
    }


def alone(file: module_files.ModuleFile, data: bytes, sample: int) -> bytes:
    """The module with all other samples silent."""
    others = [one for number, one in enumerate(file.samples) if number != sample]
    return module_files.silenced(data, others)


def listen(file: module_files.ModuleFile, data: bytes, use: Use, key: tuple[int, int]) -> Sound:
    """A sample played once, at the note of this (instrument, note)."""
    module = openmpt.Module(alone(file, data, use.sample), "")
    for channel in range(module.channels):
        module.mute_channel(channel)
    module.play_note(*key)
    wanted, blocks = int(SOUND_S * SAMPLE_RATE_HZ), [np.zeros((1, 1), np.float32)]
    for block in module.play(SAMPLE_RATE_HZ, 1):
        blocks.append(block)
        if sum(map(len, blocks)) >= wanted:
            break
    sound = np.concatenate(blocks)[1:, 0].astype(np.float64)
    return measure(np.pad(sound, (0, max(0, wanted - len(sound))))[:wanted])


def measure(sound: Float[np.ndarray, " time"]) -> Sound:
    """What can be measured of a sound at `SAMPLE_RATE_HZ`; zeros of silence."""
    energy = np.cumsum(sound**2)
    if not energy[-1] > 0:
        return Sound(*[0.0] * 9)
    length_s = float(np.searchsorted(energy, 0.9 * energy[-1])) / SAMPLE_RATE_HZ
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    power = np.mean(frames**2, axis=1)
    frames, power = frames[power > 0.01 * power.max()], power[power > 0.01 * power.max()]
    clear, f0_hz = periodicity.clarity(frames, sample_rate_hz=SAMPLE_RATE_HZ)
    weight, good = power / power.sum(), clear > 0.8
    median_hz = float(np.median(f0_hz[good])) if good.any() else 0.0
    wander = float(np.std(12 * np.log2(f0_hz[good] / median_hz))) if good.any() else 0.0
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    hz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ)
    return Sound(
        length_s=length_s,
        clarity=float(weight @ clear),
        pitched=float(weight @ good),
        f0_hz=median_hz,
        wander=wander,
        centre_hz=float(spectrum @ hz / spectrum.sum()),
        low=float(spectrum[hz < 200].sum() / spectrum.sum()),
        root=float(spectrum[hz < 2.5 * median_hz].sum() / spectrum.sum()),
        power=float(energy[-1] / len(sound)),
    )


def by_name(*names: str) -> str:
    """The stem that the first of these names tells of; else ""."""
    for name in names:
        if KICKS.search(name):
            return DRUMS
        told = [stem for stem, pattern in NAMES.items() if pattern.search(name)]
        if len(told) == 1:
            return told[0]
    return UNSURE


def by_sound(use: Use, sound: Sound) -> str:
    """The stem of a sample by its sound and the notes it plays; "" where that is open.

    Pitched and low is bass, pitched and higher is other; short, without pitch and at few notes is
    drums, as are longer ones that are bright noise; long chords at several notes are other.
    """
    kinds = len({note for _, note in use.hits})
    short = sound.length_s < 0.4
    tuned = sound.pitched >= 0.8 and sound.clarity >= 0.85
    # What plays melodies may have a noisy attack.
    if tuned or (kinds >= 4 and sound.pitched >= 0.7 and sound.clarity >= 0.75):
        register_hz = sound.f0_hz * 2 ** ((np.median(use.notes) - use.usual[1]) / 12)
        if short and kinds <= 2:
            falls = sound.wander > 0.15 and sound.low > 0.5 and register_hz < 200
            return DRUMS if falls else UNSURE
        if register_hz < 110:
            return BASS if sound.root > 0.25 and sound.wander < 2 else OTHER
        return OTHER if register_hz > 150 else UNSURE
    noisy = sound.pitched < 0.3 and sound.clarity < 0.65
    if short:
        drum = (noisy and kinds <= 6) or (sound.low > 0.6 and kinds <= 2)
        return DRUMS if drum or (kinds <= 3 and sound.pitched < 0.6) else UNSURE
    if noisy and sound.centre_hz > 3500 and kinds <= 4:
        return DRUMS
    if kinds >= 3 and sound.clarity > 0.55 and sound.centre_hz < 3000:
        return OTHER
    steady = sound.length_s > 1 and sound.low < 0.5
    return OTHER if steady and sound.clarity > 0.6 and sound.centre_hz < 2500 else UNSURE


def stem_of(named: str, heard: str) -> str:
    """The stem by both: the name holds, but drums and bass by name that sound like something else
    are unsure.
    """
    if named in (UNSURE, heard):
        return heard
    return named if named == OTHER or heard == UNSURE else UNSURE


def stem_of_sample(file: module_files.ModuleFile, use: Use, sound: Sound) -> str:
    """The stem of a sample by its name or its instrument's, its sound and its notes."""
    names = file.samples[use.sample].name, file.instruments[use.usual[0]]
    return stem_of(by_name(*names), by_sound(use, sound))
