"""Made-up copies of Slakh2100, every edition, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile
import yaml

RATE, SECONDS = 22050, 0.5
# stem: (program, is_drum, group)
PROGRAMS = {
    "S00": (0, False, "piano"),
    "S01": (7, False, "piano"),
    "S02": (8, False, "others"),
    "S03": (24, False, "guitar"),
    "S04": (31, False, "guitar"),
    "S05": (32, False, "bass"),
    "S06": (39, False, "bass"),
    "S07": (40, False, "others"),
    "S08": (128, True, "drums"),
    "S09": (5, True, "drums"),
    "S10": (23, False, "others"),
}


def write_song(
    folder: pathlib.Path, *, suffix: str = ".flac", rate: int = RATE, **changes
) -> pathlib.Path:
    """A song whose stem SNN has the constant level (NN + 1) / 200; changes: of the rows of
    metadata.yaml.
    """
    (folder / "stems").mkdir(parents=True)
    rows = {
        name: {"program_num": program, "is_drum": is_drum, "audio_rendered": True}
        for name, (program, is_drum, _) in PROGRAMS.items()
    }
    for name, row in changes.items():
        rows[name] = {**rows.get(name, {}), **row} if isinstance(row, dict) else row
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": "x", "stems": rows}))
    for name in PROGRAMS:
        level = np.full(int(SECONDS * rate), (int(name[1:]) + 1) / 200)
        soundfile.write(folder / "stems" / f"{name}{suffix}", level, rate)
    soundfile.write(folder / f"mix{suffix}", np.full(int(SECONDS * rate), 0.9), rate)
    return folder


def touch_songs(root: pathlib.Path, *places: str) -> None:
    """Songs to be listed only."""
    for place in places:
        (root / place / "stems").mkdir(parents=True)
        (root / place / "stems/S00.flac").touch()
