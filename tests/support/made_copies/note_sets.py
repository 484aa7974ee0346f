"""Made-up copies of MusicNet, MAESTRO, Su, TRIOS and NSynth, by real encoders, in their layouts."""

import json
import pathlib

import numpy as np
import pretty_midi
import soundfile

# Onset and offset in s, MIDI number: a chord, then one tone; all are away from frame times.
NOTES = [(0.3, 0.9, 57), (0.5, 0.9, 64), (1.2, 1.6, 69)]


def hz(midi: float) -> float:
    return 440.0 * 2.0 ** ((midi - 69) / 12)


def write_audio(path: pathlib.Path, notes=NOTES, seconds=2.0, rate=44100) -> None:
    times_s = np.arange(int(seconds * rate)) / rate
    sound = sum(
        0.3 * np.sin(2 * np.pi * hz(midi) * times_s) * ((times_s >= on) & (times_s < off))
        for on, off, midi in notes
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([sound, sound], axis=1), rate, format=path.suffix[1:])


def write_midi(path: pathlib.Path, notes=NOTES, *, pedal=()) -> None:
    midi, piano = pretty_midi.PrettyMIDI(resolution=960), pretty_midi.Instrument(0)
    piano.notes = [pretty_midi.Note(90, p, on, off) for on, off, p in notes]
    piano.control_changes = [pretty_midi.ControlChange(64, value, at) for at, value in pedal]
    midi.instruments = [piano]
    path.parent.mkdir(parents=True, exist_ok=True)
    midi.write(str(path))


def write_musicnet(root: pathlib.Path, part="train", name="1727", notes=NOTES) -> pathlib.Path:
    write_audio(root / f"{part}_data/{name}.wav")
    labels = root / f"{part}_labels/{name}.csv"
    labels.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f"{round(on * 44100)},{round(off * 44100)},41,{p},0.0,1.0,Half\n" for on, off, p in notes
    ]
    header = "start_time,end_time,instrument,note,start_beat,end_beat,note_value\n"
    labels.write_text(header + "".join(rows))
    return labels


MAESTRO_HEADER = (
    "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n"
)


def write_maestro(root: pathlib.Path, notes=NOTES, pedal=()) -> pathlib.Path:
    root.mkdir(parents=True, exist_ok=True)
    rows = [
        f'"Bach, J. S.",Prelude,{split},2018,2018/{split}.midi,2018/{split}.wav,2.5\n'
        for split in ("validation", "train", "test")
    ]
    (root / "maestro-v3.0.0.csv").write_text(MAESTRO_HEADER + "".join(rows))
    write_audio(root / "2018/train.wav")
    write_midi(root / "2018/train.midi", notes, pedal=pedal)
    return root / "2018/train.midi"


def write_su(root: pathlib.Path, piece="PQ02_Dvorak", notes=NOTES) -> pathlib.Path:
    write_audio(root / f"audio/{piece}_audio.wav")
    labels = root / f"gt_Note/{piece}_note.txt"
    labels.parent.mkdir(parents=True, exist_ok=True)
    labels.write_text("".join(f"{on}\t{off} {hz(p):.6f}\n" for on, off, p in notes))
    return labels


def write_trios(root: pathlib.Path, piece="brahms", notes=NOTES) -> pathlib.Path:
    write_audio(root / piece / "mix.wav")
    write_midi(root / piece / "horn.mid", notes[:1])
    write_midi(root / piece / "piano.mid", notes[1:])
    write_midi(root / piece / "drums.mid", [(0.0, 2.0, 40)])
    return root / piece / "piano.mid"


def write_nsynth(root: pathlib.Path, part="valid", midi=69, notes=NOTES[2:]) -> pathlib.Path:
    name = f"bass_synthetic_033-{midi:03d}-100"
    write_audio(root / f"nsynth-{part}/audio/{name}.wav", notes, rate=16000)
    listed = {name: {"pitch": midi, "instrument_str": "bass_synthetic_033", "velocity": 100}}
    path = root / f"nsynth-{part}/examples.json"
    path.write_text(json.dumps(listed))
    return path
