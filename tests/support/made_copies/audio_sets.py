"""Made-up copies of FMA, E-GMD and a folder of one's own, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile


def write_audio(path: pathlib.Path, seconds: float = 1.0, rate: int = 44100) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    times_s = np.arange(int(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * 220 * times_s)
    kind = {".opus": "OGG", ".oga": "OGG", ".aif": "AIFF"}.get(path.suffix, path.suffix[1:].upper())
    soundfile.write(path, np.stack([tone, 0.5 * tone], axis=1), rate, format=kind)
    return path


def write_fma(root: pathlib.Path, *names: str, table: str | None = None) -> pathlib.Path:
    for name in names:
        write_audio(root / name[:3] / f"{name}.mp3")
    if table is not None:
        (root / "fma_metadata").mkdir(parents=True)
        (root / "fma_metadata/tracks.csv").write_text(table, encoding="utf-8")
    return root


def write_e_gmd(root: pathlib.Path) -> pathlib.Path:
    root.mkdir(parents=True, exist_ok=True)
    header = (
        "drummer,session,id,style,bpm,beat_type,time_signature,duration,split,"
        "midi_filename,audio_filename,kit_name\n"
    )
    rows = [
        f"drummer1,s1,drummer1/s1/{n},rock,100,beat,4-4,{n}.5,{split},drummer1/s1/{n}_2.midi,drummer1/s1/{n}_2.wav,Kit\n"
        for n, split in ((3, "test"), (1, "train"), (2, "validation"))
    ]
    (root / "e-gmd-v1.0.0.csv").write_text(header + "".join(rows))
    write_audio(root / "drummer1/s1/1_2.wav")
    return root
