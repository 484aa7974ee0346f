"""Made-up copies of the Dagstuhl ChoirSet, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile

RATE, SECONDS = 22050, 0.5
LEVELS = {"S": 0.01, "A": 0.02, "T": 0.04, "B": 0.08}
QUARTET_A, QUARTET_B = ("S2", "A1", "T1", "B1"), ("S1", "A2", "T2", "B2")
ALL_FULL_CHOIR = ("S1", "S2", "S3", "A1", "A2", "A3", "T1", "T2", "T3", "B1", "B2", "B3", "B4")


def write_take(root: pathlib.Path, take: str, dyn: tuple[str, ...], others: tuple[str, ...] = ()):
    """The files of a take: DYN of some singers, the larynx microphones of all, the room."""
    folder = root / "audio_wav_22050_mono"
    folder.mkdir(parents=True, exist_ok=True)
    samples = int(SECONDS * RATE)
    for singer in dyn:
        level = np.full(samples, LEVELS[singer[0]])
        soundfile.write(folder / f"DCS_{take}_{singer}_DYN.wav", level, RATE)
    for singer in {*dyn, *others}:
        soundfile.write(folder / f"DCS_{take}_{singer}_LRX.wav", np.full(samples, 0.5), RATE)
    for room in ("Stereo_STM", "Stereo_STL", "StereoReverb_STM", "Piano_SPL"):
        soundfile.write(folder / f"DCS_{take}_{room}.wav", np.full(samples, 0.7), RATE)


def write_copy(root: pathlib.Path) -> None:
    write_take(root, "LI_QuartetA_Take01", QUARTET_A)
    write_take(root, "LI_QuartetB_Overacted", QUARTET_B)
    write_take(root, "TP_FullChoir_Outtake", QUARTET_B, ALL_FULL_CHOIR)
    write_take(root, "SE_FullChoir_ScaleUpDownPiano01", QUARTET_B, ALL_FULL_CHOIR)
    # not to be used:
    write_take(root, "LI_QuartetA_Solo04", ("S2",), QUARTET_A)
    write_take(root, "LI_FullChoir_Solo02", (), ALL_FULL_CHOIR)
    write_take(root, "LI_Basses_Take01", ("B1", "B2", "B3", "B4"), ("B5",))
    write_take(root, "TP_FullChoir_Take09", ("S1", "A2", "T2"), ALL_FULL_CHOIR)
