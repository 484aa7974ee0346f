"""`ikala`: iKala, 252 clips of songs, 30 s each, accompaniment left, voice right (Chan et al.
2015).

The name of a clip does not tell who sings it; id_mapping.txt, which was distributed beside the
data set, does. `ikala` keeps singers apart and needs that file; `ikala_songs` keeps songs apart
and does not.
"""

import functools
import pathlib

import numpy as np
from jaxtyping import Bool, Float32, Float64

from majl_jax.audio import files
from majl_jax.datasets import notes, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split, seeded_split
from majl_jax.datasets.track import BadTrack, Recording, Track, stack

STEMS = ("accompaniment", "voice")
SUFFIXES = (".flac", ".wav")  # of a clip that is there twice, the last
LABEL_MS = 32  # line i labels 32 i to 32 (i + 1) ms, so it is centred at 0.016 + 0.032 i s
LENGTHS_DIFFER_S = 0.1
SECONDS = 30.0
SPLITS_BY = ("singer", "song")
SPLIT_LIST = SPLITS_FOLDER / "ikala.txt"
SINGERS_FILE = "id_mapping.txt"
COPY = source_files.Copy(
    "iKala", "Wavfile/ID_verse.wav, ID_chorus.wav (.flac) and PitchLabel/ID_verse.pv, ID_chorus.pv"
)
NO_SINGER = f"its song is not in {SINGERS_FILE}, so its singer is not known"


def tracks(
    source: str | None, *, grid: Grid, seed: int = 0, split_by: str = "singer"
) -> list[Track]:
    """The clips below `source`, split by "singer" or by "song".

    By singer, a tenth of the singers of id_mapping.txt (one at least) is test and a tenth of the
    others valid, drawn by the seed; by song, data/splits/ikala.txt says it. Raises
    FileNotFoundError by singer without id_mapping.txt.
    """
    if split_by not in SPLITS_BY:
        raise ValueError(f"split_by is {split_by!r}; expected one of {SPLITS_BY}")
    clips = find_clips(source)
    root = clips[0].parents[1]
    if split_by == "singer":
        group_of = read_singers(root / SINGERS_FILE)
        splits = seeded_split(sorted(set(group_of.values())), seed=seed)
    else:
        group_of = {song_of(path): song_of(path) for path in clips}
        splits = dict(read_split(SPLIT_LIST))
    out = []
    for path in clips:
        labels = root / "PitchLabel" / f"{path.stem}.pv"
        group = group_of.get(song_of(path), "")
        out.append(
            Track(
                id=path.stem,
                split=splits.get(group, "train"),
                group=group,
                paths=(path, labels),
                seconds=SECONDS,
                load=functools.partial(load, path, labels, grid=grid),
                left_out="" if group else NO_SINGER,
            )
        )
    return out


def find_clips(source: str | None) -> list[pathlib.Path]:
    """The audio files of a copy, one per clip."""
    root = COPY.root(source)
    of_clip = {
        path.stem: path
        for suffix in SUFFIXES
        for path in root.glob(f"Wavfile/*{suffix}")
        if not path.name.startswith(".")
    }
    if not of_clip or not (root / "PitchLabel").is_dir():
        raise COPY.nothing(root)
    return [path for _, path in sorted(of_clip.items())]


def song_of(path: pathlib.Path) -> str:
    """The number of the song, from SONG_verse or SONG_chorus."""
    return path.stem.split("_")[0]


def read_singers(path: pathlib.Path) -> dict[str, str]:
    """The singer of each song: lines "singer song" after a line of these names."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: without it singers cannot be kept apart. Copy it there, or prepare"
            " the data set `ikala_songs`, which keeps songs apart only"
        )
    singers = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        words = line.split()
        if not words or words[0] == "singer":
            continue
        if len(words) != 2 or singers.setdefault(words[1], words[0]) != words[0]:
            raise ValueError(
                f"{path}, line {number}: {line.strip()[:40]!r}; expected singer and song, and each"
                " song once"
            )
    if not singers:
        raise ValueError(f"{path}: has no lines of singer and song")
    return singers


def load(path: pathlib.Path, labels: pathlib.Path, *, grid: Grid) -> Recording:
    """One clip: its two channels as stems, and the pitch of the voice."""
    if (found := files.inspect(path).channels) != 2:
        raise BadTrack(f"{path}: {found} channels, expected 2 (left accompaniment, right voice)")
    semitones = notes.read_semitones(labels)
    both, _ = files.read(path, sample_rate_hz=grid.sample_rate_hz, channels=2)
    audio = stack([both[:, :1], both[:, 1:]], grid=grid)
    audio_s, labels_s = grid.seconds(len(audio)), len(semitones) * LABEL_MS / 1000
    if abs(audio_s - labels_s) > LENGTHS_DIFFER_S:
        raise BadTrack(
            f"{labels}: {len(semitones)} labels of {LABEL_MS} ms are {labels_s:.2f} s, its audio is"
            f" {audio_s:.2f} s: is one of them cut off, or of another clip?"
        )
    frames = grid.frame_count(len(audio))
    f0_hz, has_pitch = np.zeros((frames, 2), np.float32), np.zeros((frames, 2), bool)
    f0_hz[:, 1], has_pitch[:, 1] = on_frames(semitones, frames=frames, grid=grid)
    return Recording(
        audio=audio,
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
    )


def on_frames(
    semitones: Float64[np.ndarray, " row"], *, frames: int, grid: Grid
) -> tuple[Float32[np.ndarray, " frame"], Bool[np.ndarray, " frame"]]:
    """F0 in Hz (0 = unvoiced) of the label in whose 32 ms each frame falls, and whether there is
    one.
    """
    # exact: integers
    rows = np.arange(frames) * grid.hop_samples * 1000 // (LABEL_MS * grid.sample_rate_hz)
    known = rows < len(semitones)
    midi = np.zeros(frames)
    midi[known] = semitones[rows[known]]
    return notes.semitones_hz(midi), known
