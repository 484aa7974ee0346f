"""Notes to audio: a General MIDI sound font through midirenderer, one part at a time."""

import functools
import importlib.util
import io
import pathlib

import numpy as np
from jaxtyping import Float32, Int64

from majl_jax.datasets.grid import Grid
from majl_jax.datasets.synthesis import performance
from majl_jax.datasets.track import (
    Recording,
    frames_from_notes,
)

CONTROL_VOLUME = 7
BEND_RANGE_SEMITONES = 2.0  # the General MIDI default
TICKS_PER_QUARTER = 960
# How long after note-on a program of TimGM6mb has its pitch, and how much longer than that it holds
# the pitch after note-off (measured against an f0 estimate, to 10 ms). Notes are sent so much
# earlier, and so the sound, not the key stroke, is at the time of the label.
LAG_S = {
    **{20: 0.02, 24: 0.01, 35: 0.01, 40: 0.03, 41: 0.04, 42: 0.02, 52: 0.06, 53: 0.02, 54: 0.03},
    **{44: 0.03, 56: 0.01, 61: 0.02, 67: 0.02, 75: 0.02, 79: 0.02, 82: 0.02},
    **{57: 0.03, 58: 0.02, 60: 0.06, 66: 0.04, 68: 0.03, 69: 0.03, 70: 0.01, 71: 0.02, 73: 0.05},
}
HOLD_S = {44: 0.1, 52: 0.05, 54: 0.1}


@functools.lru_cache(maxsize=1)
def sound_font() -> bytes:
    """TimGM6mb.sf2, found inside the installed pretty_midi package."""
    spec = importlib.util.find_spec("pretty_midi")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pretty_midi is missing: `pip install pretty_midi`")
    path = pathlib.Path(spec.origin).with_name("TimGM6mb.sf2")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: `pip install --force-reinstall pretty_midi`")
    return path.read_bytes()


def midi_bytes(
    times_s: Float32[np.ndarray, "note 2"],
    pitches: Int64[np.ndarray, " note"],
    velocities: Int64[np.ndarray, " note"],
    *,
    program: int,
    tuning_cents: float,
    duration_s: float,
) -> bytes:
    """One part as a MIDI file.

    Args:
        times_s: when each note begins and ends to be heard; key strokes come earlier, by the lag
            of the program.
        pitches: MIDI numbers.
        velocities: 1 to 127.
        program: of General MIDI, from 0.
        tuning_cents: how far all is above A = 440 Hz.
        duration_s: of the file.
    """
    import pretty_midi

    bend = round(tuning_cents / 100 / BEND_RANGE_SEMITONES * 8192)
    part = pretty_midi.Instrument(program)
    part.pitch_bends.append(pretty_midi.PitchBend(bend, 0.0))
    for (heard_s, gone_s), pitch, velocity in zip(times_s, pitches, velocities, strict=True):
        on_s = max(float(heard_s) - LAG_S.get(program, 0.0), 0.0)
        off_s = float(gone_s) - LAG_S.get(program, 0.0) - HOLD_S.get(program, 0.0)
        off_s = max(off_s, on_s + 0.6 * float(gone_s - heard_s))
        part.notes.append(pretty_midi.Note(int(velocity), int(pitch), on_s, off_s))
    # The renderer stops at the last event: a late one keeps the release of the last note.
    part.control_changes.append(pretty_midi.ControlChange(CONTROL_VOLUME, 120, 0.0))
    part.control_changes.append(pretty_midi.ControlChange(CONTROL_VOLUME, 120, duration_s))
    score = pretty_midi.PrettyMIDI(resolution=TICKS_PER_QUARTER)
    score.instruments.append(part)
    file = io.BytesIO()
    score.write(file)
    return file.getvalue()


def render(midi: bytes, *, sample_rate_hz: int, samples: int) -> Float32[np.ndarray, " time"]:
    """Mono audio of a MIDI file, exactly `samples` long."""
    import midirenderer
    import soundfile
    import soxr

    wav = midirenderer.render_wave_from(sound_font(), midi)
    stereo, rendered_hz = soundfile.read(io.BytesIO(wav), dtype="float32", always_2d=True)
    mono = 0.5 * (stereo[:, 0] + stereo[:, 1])
    audio = soxr.resample(mono, rendered_hz, sample_rate_hz)
    out = np.zeros(samples, np.float32)
    kept = min(samples, len(audio))
    out[:kept] = audio[:kept]
    return out


STEMS = ("soprano", "alto", "tenor", "bass")
ATTACK_S = 0.06  # before its pitch is clear a note may be heard for so long
RELEASE_S = 0.42  # release and reverberation fall by 20 to 30 dB in this time
TAIL_S = 1.0
PEAK = 0.7  # of the mixture or of the loudest stem, whichever is larger


def render_voices(played: performance.Performance, *, grid: Grid) -> Recording:
    """Audio, frame labels and notes of a performance, all stems scaled by one gain."""
    seconds = max(part.times_s[-1, 1] for part in played.parts if len(part.times_s)) + TAIL_S
    frames = grid.frames_over(seconds)
    samples = frames * grid.hop_samples
    audio = np.zeros((samples, len(STEMS), 1), np.float32)
    f0_hz = np.zeros((frames, len(STEMS)), np.float32)
    has_pitch = np.ones((frames, len(STEMS)), bool)
    notes = []
    for stem, part in enumerate(played.parts):
        note_hz = 440.0 * 2.0 ** ((part.pitches - 69 + played.tuning_cents / 100) / 12)
        notes.append(np.column_stack([part.times_s, note_hz]).astype(np.float32))
        f0_hz[:, stem], has_pitch[:, stem] = frames_from_notes(
            notes[-1],
            frames=frames,
            grid=grid,
            attack_s=ATTACK_S,
            release_s=RELEASE_S,
        )
        midi = midi_bytes(
            part.times_s,
            part.pitches,
            part.velocities,
            program=part.program,
            tuning_cents=played.tuning_cents,
            duration_s=grid.seconds(samples),
        )
        sound = render(midi, sample_rate_hz=grid.sample_rate_hz, samples=samples)
        audio[:, stem, 0] = level(sound, f0_hz[:, stem] > 0, part.gain_db, grid.hop_samples)
    peak = max(np.abs(audio).max(), np.abs(audio.sum(axis=1)).max())
    return Recording(
        audio=audio * np.float32(PEAK / peak),
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
        notes=tuple(notes),
    )


def level(sound: np.ndarray, voiced: np.ndarray, gain_db: float, hop_samples: int) -> np.ndarray:
    """Scales a part to `gain_db` re 1 rms over its voiced frames, as programs differ by 12 dB."""
    frames = sound.reshape(-1, hop_samples)[voiced]
    if not frames.size or not np.any(frames):
        return sound
    rms = np.sqrt(np.mean(np.square(frames, dtype=np.float64)))
    return sound * np.float32(10 ** (gain_db / 20) / rms)
