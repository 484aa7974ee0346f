"""Made-up copies of MUSDB18, both editions, by real encoders, in their layouts."""

import pathlib

import numpy as np
import soundfile

FILE_RATE, SECONDS = 44100, 1.5
TONES_HZ = {"drums": 300.0, "bass": 500.0, "other": 900.0, "vocals": 1400.0}


def sounds(gain: float = 0.2) -> dict[str, np.ndarray]:
    """[time, channel] of every stem: a tone of its own from 0.5 s on, its right channel half as
    loud.
    """
    times_s = np.arange(int(SECONDS * FILE_RATE)) / FILE_RATE
    tones = {
        name: gain * np.sin(2 * np.pi * hz * times_s) * (times_s >= 0.5)
        for name, hz in TONES_HZ.items()
    }
    return {name: np.stack([tone, tone / 2], axis=1) for name, tone in tones.items()}


def write_wav_song(
    root: pathlib.Path, name: str, folder: str = "train", **of_sound
) -> pathlib.Path:
    song = root / folder / name
    song.mkdir(parents=True)
    for stem, sound in sounds(**of_sound).items():
        soundfile.write(song / f"{stem}.wav", sound, FILE_RATE)
    soundfile.write(song / "mixture.wav", sum(sounds().values()) * 0.1, FILE_RATE)
    return song


def write_stem_mp4(path: pathlib.Path, streams: int = 5) -> pathlib.Path:
    """Mixture, drums, bass, other, vocals as AAC, as in the real files."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    given = [sum(sounds().values()), *sounds().values()][:streams]
    # The table of contents first, as a file that was cut off in mid-download may have it.
    options = {"movflags": "faststart"}
    with av.open(str(path), "w", format="mp4", options=options) as container:
        outputs = [
            container.add_stream("aac", rate=FILE_RATE, layout="stereo", bit_rate=256_000)
            for _ in given
        ]
        for output, sound in zip(outputs, given, strict=True):
            planes = np.ascontiguousarray(sound.T, np.float32)
            frame = av.AudioFrame.from_ndarray(planes, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = FILE_RATE, 0
            for packet in (*output.encode(frame), *output.encode(None)):
                container.mux(packet)
    return path
