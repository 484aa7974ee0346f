"""The pitches of a tracker module: what its patterns say, where its sound agrees."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from majl_jax.audio import module_files, openmpt
from majl_jax.datasets import module_parts
from majl_jax.datasets.grid import Grid

CHECKED_HZ = 16_000
# YIN looks at two periods of the lowest pitch, in frames that hold one note of fast music.
FRAME, LOWEST_HZ, HIGHEST_HZ = 1024, 33.0, 3000.0
WITHIN_CENTS = 50.0
# A channel sounds where it is not so much softer than at its loudest.
SILENT_DB = -40.0
NO_SAMPLE = -1


@dataclasses.dataclass(frozen=True)
class Checked:
    """The frames of each channel: the pitch that its patterns say, 0 without one; where it sounds;
    whether the sound has that pitch; whether a drum sounds, which has none; and the number of the
    row in which what sounds was struck, -1 before the first.
    """

    f0_hz: Float[np.ndarray, "frame channel"]
    sounds: Bool[np.ndarray, "frame channel"]
    agrees: Bool[np.ndarray, "frame channel"]
    drums: Bool[np.ndarray, "frame channel"]
    struck: Int[np.ndarray, "frame channel"]

    def labels(
        self, voices: int
    ) -> tuple[Float[np.ndarray, "frame v"], Bool[np.ndarray, "frame v"]]:
        """The pitches of the mixture and whether they are a label.

        They are in frames in which every channel that sounds has a pitch that agrees, or a drum.
        A channel is one voice; with more than `voices` of them those with the most frames are.
        """
        pitched = self.sounds & ~self.drums
        use = pitched & self.agrees
        chosen = np.sort(np.argsort(-use.sum(axis=0), kind="stable")[:voices])
        within = np.zeros(use.shape[1], bool)
        within[chosen] = True
        known = np.logical_not(np.any(pitched & ~(use & within), axis=1))
        f0_hz = np.zeros((len(use), voices), np.float32)
        f0_hz[:, : len(chosen)] = np.where(use & known[:, None], self.f0_hz, 0.0)[:, chosen]
        return f0_hz, np.repeat(known[:, None], voices, axis=1)


def tunings(
    uses: Mapping[int, module_parts.Use], sounds: Mapping[int, module_parts.Sound]
) -> dict[int, float]:
    """Of each sample with a clear pitch f0 in Hz at note 0: f0 2^(-note/12) of its usual note."""
    return {
        number: sounds[number].f0_hz * 2 ** (-use.usual[1] / 12)
        for number, use in uses.items()
        if sounds[number].pitched >= 0.8 and sounds[number].wander < 0.5
    }


def played(
    module: openmpt.Module, file: module_files.ModuleFile, *, times_s: Float[np.ndarray, " frame"]
) -> tuple[Int[np.ndarray, "frame channel"], ...]:
    """The sample, the note and the number of the row that were last struck in each channel at these
    times; none: -1.

    Plays the module to its end.
    """
    patterns = {number: module.pattern(number) for number in {*module.sequence()}}
    rows = module.follow()
    starts = np.searchsorted(times_s, [time_s for time_s, *_ in rows])
    samples = np.full((len(times_s), module.channels), NO_SAMPLE)
    notes, struck = np.full_like(samples, NO_SAMPLE), np.full_like(samples, NO_SAMPLE)
    instruments = [0] * module.channels
    for number, (start, (_, pattern, row)) in enumerate(zip(starts, rows, strict=True)):
        cells = patterns[pattern][row, :, :2].astype(int)
        for channel in np.flatnonzero(cells.any(axis=1)):
            note, instrument = cells[channel]
            instruments[channel] = instrument or instruments[channel]
            key = instruments[channel] - 1, note - 1
            if 1 <= note <= module_files.NOTES:
                samples[start:, channel] = file.keys.get(key, NO_SAMPLE)
                notes[start:, channel], struck[start:, channel] = note - 1, number
    return samples, notes, struck


def check(data: bytes, file: module_files.ModuleFile, *, grid: Grid, frames: int) -> Checked:
    """Plays every channel alone and compares YIN's pitch with that of the patterns.

    frames: of the labels, `grid` says where they lie.
    """
    times_s = grid.frame_times_s(frames)
    module = openmpt.Module(data, "")
    uses = module_parts.uses(module, file)
    sounds = {
        number: module_parts.listen(file, data, use, use.usual) for number, use in uses.items()
    }
    root_hz = np.zeros(len(file.samples) + 1)  # the last is that of no sample
    drum = np.zeros(len(root_hz), bool)
    for number, hz in tunings(uses, sounds).items():
        root_hz[number] = hz
    for number, use in uses.items():
        stem = module_parts.stem_of_sample(file, use, sounds[number])
        drum[number] = stem == module_parts.DRUMS
    samples, notes, struck = played(module, file, times_s=times_s)
    f0_hz = root_hz[samples] * 2.0 ** (notes / 12)
    active, agrees = np.zeros(f0_hz.shape, bool), np.zeros(f0_hz.shape, bool)
    for channel in range(module.channels):
        own = samples[:, channel]
        if (own != NO_SAMPLE).any() and not drum[own[own != NO_SAMPLE]].all():
            solo = _channel_alone(data, channel, module.channels)
            active[:, channel], found_hz = _yin(solo, times_s)
            cents = 1200 * np.abs(np.log2(np.maximum(f0_hz[:, channel], 1e-9) / found_hz))
            agrees[:, channel] = cents <= WITHIN_CENTS
    return Checked(f0_hz, active, agrees, drum[samples], struck)


def _channel_alone(data: bytes, channel: int, channels: int) -> Float[np.ndarray, " time"]:
    module = openmpt.Module(data, "")
    for other in range(channels):
        if other != channel:
            module.mute_channel(other)
    blocks = [block[:, 0] for block in module.play(CHECKED_HZ, 1)]
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def _yin(
    sound: Float[np.ndarray, " time"], times_s: Float[np.ndarray, " frame"]
) -> tuple[Bool[np.ndarray, " frame"], Float[np.ndarray, " frame"]]:
    """Whether a sound is there at these times, and its pitch in Hz there by YIN."""
    import librosa

    hop = FRAME // 4
    sound = np.pad(sound, (0, FRAME))
    found_hz = librosa.yin(
        sound, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, sr=CHECKED_HZ, frame_length=FRAME, hop_length=hop
    )
    padded = np.pad(sound, FRAME // 2)
    power = np.lib.stride_tricks.sliding_window_view(np.square(padded), FRAME)[::hop].mean(axis=1)
    nearest = np.round(times_s * CHECKED_HZ / hop).astype(int)
    nearest = np.minimum(nearest, min(len(power), len(found_hz)) - 1)
    active = power > power.max() * 10 ** (SILENT_DB / 10)
    return active[nearest], found_hz[nearest].astype(np.float64)
