"""`mir1k`: MIR-1K, 1000 clips of singing, accompaniment left, voice right (Hsu and Jang 2010).

The same clips come in several data sets: by three splits (singer, song, clip), with the training
singers divided over three views, as if labels were few, with few of the training clips, and all of
them as mixtures without labels.
"""

import functools
import pathlib
import zlib
from collections.abc import Callable

import numpy as np

from majl_jax.audio import files
from majl_jax.datasets import notes, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.track import (
    BadTrack,
    Recording,
    Track,
    unknown_pitch,
    unknown_stems,
)

STEMS = ("accompaniment", "voice")
COPY = source_files.Copy("MIR-1K", "Wavfile/*.wav (.flac, .mp3) and PitchLabel/*.pv")
LOSSLESS, LOSSY = (".wav", ".flac"), (".mp3",)
FILE_RATE_HZ = 16000
LABEL_HOP_SAMPLES = 320
GRID = Grid(FILE_RATE_HZ, LABEL_HOP_SAMPLES)
LABEL_WINDOW_SAMPLES = 640  # labels have no padding: the first is centred half a window in
SPLIT_LISTS = {
    "singer": SPLITS_FOLDER / "mir1k_singers.txt",
    "song": SPLITS_FOLDER / "mir1k_songs.txt",
    "clip": SPLITS_FOLDER / "mir1k_author.txt",
}
VIEWS = ("full", "stems", "pitch")
MIXTURES = "mixtures"
NOT_SCORED = "lossy audio is not scored: test takes lossless clips only"


def tracks(
    source: str | None,
    *,
    grid: Grid,
    seed: int = 0,
    split_by: str = "singer",
    view: str | None = None,
    percent: int = 100,
    rest: bool = False,
) -> list[Track]:
    """The clips below `source` (Wavfile/*.wav, PitchLabel/*.pv); unlisted ones are in train.

    Args:
        source: the folder of MIR-1K.
        grid: has to be that of its labels; its channels do not matter.
        seed: does not matter.
        split_by: "singer", "song" or "clip".
        view: None, or one of "full" (its training singers, valid, test), "stems" (no pitch labels),
            "pitch" (mixture only); each training singer belongs to one. Or "mixtures": all clips,
            none with a label.
        percent: of the training clips, see `_of_share`.
        rest: the training clips that are not in that share.
    """
    del seed
    if (grid.sample_rate_hz, grid.hop_samples) != (GRID.sample_rate_hz, GRID.hop_samples):
        raise ValueError(
            f"mir1k is labelled every {LABEL_HOP_SAMPLES} samples at {FILE_RATE_HZ} Hz; prepare "
            f"it with --sample_rate_hz={FILE_RATE_HZ} --hop_samples={LABEL_HOP_SAMPLES}, not "
            f"{grid.sample_rate_hz} and {grid.hop_samples}"
        )
    by_singer = view in VIEWS
    if view not in (None, MIXTURES) and not (by_singer and split_by == "singer"):
        raise ValueError(f"view is {view!r} of the split by {split_by}; expected {VIEWS} by singer")
    rows = {row[0]: row[1:] for row in read_split(SPLIT_LISTS[split_by])}
    out = []
    for path in find_clips(source):
        group = _group(path.stem, split_by)
        split, its_view = (*rows.get(group, ("train",)), "full")[:2]
        if by_singer and its_view != view:
            continue
        labels = path.parents[1] / "PitchLabel" / f"{path.stem}.pv"
        lossy = split == "test" and path.suffix.lower() in LOSSY
        out.append(
            Track(
                id=path.stem,
                split=split,
                group=group,
                paths=(path, labels),
                seconds=8.0,
                load=functools.partial(load, path, labels, view=view or "full"),
                left_out=NOT_SCORED if lossy else "",
            )
        )
    return out if percent == 100 else _of_share(out, percent, rest)


def _of_share(found: list[Track], percent: int, rest: bool) -> list[Track]:
    """All that is not for training, and that share of what is, at least a clip; or its `rest`.

    Each group gives a clip in turn, whichever its checksum puts first: a larger share has all
    clips of a smaller one, and a small one is of many singers.
    """
    of_group: dict[str, list[str]] = {}
    training = [one for one in found if one.split == "train"]
    for one in sorted(training, key=lambda one: zlib.crc32(one.id.encode())):
        of_group.setdefault(one.group, []).append(one.id)
    in_turn = sorted(
        (turn, group, clip) for group, clips in of_group.items() for turn, clip in enumerate(clips)
    )
    kept = {clip for *_, clip in in_turn[: max(round(len(in_turn) * percent / 100), 1)]}
    return [one for one in found if one.split != "train" or (one.id in kept) != rest]


def find_clips(source: str | None) -> list[pathlib.Path]:
    """The audio files of a copy, one per clip: the lossless one where there are two."""
    folder = COPY.root(source)
    of_clip = {
        path.stem: path
        for suffix in (*LOSSY, *reversed(LOSSLESS))
        for path in source_files.visible(folder, "Wavfile/*")
        if path.suffix.lower() == suffix
    }
    if not of_clip or not (folder / "PitchLabel").is_dir():
        raise COPY.nothing(folder)
    return [path for _, path in sorted(of_clip.items())]


def _group(clip: str, split_by: str) -> str:
    """What a split keeps together, from SINGER_song_part."""
    parts = {"singer": 1, "song": 2, "clip": 3}[split_by]
    return "_".join(clip.split("_")[:parts])


def load(path: pathlib.Path, labels: pathlib.Path, *, view: str = "full") -> Recording:
    """One clip with the labels of its view."""
    info = files.inspect(path)
    if info.channels != 2 or info.sample_rate_hz != FILE_RATE_HZ:
        raise BadTrack(
            f"{path}: {info.channels} channels at {info.sample_rate_hz} Hz, expected 2 at "
            f"{FILE_RATE_HZ} Hz (left accompaniment, right voice)"
        )
    audio, _ = files.read(path)
    f0_hz, has_pitch = read_labels(labels, samples=len(audio))
    no_label = np.zeros_like(has_pitch)
    recording = Recording(
        audio=np.asarray(audio, np.float32)[:, :, None],
        stems=STEMS,
        has_stems=np.ones(len(STEMS), bool),
        f0_hz=np.stack([np.zeros_like(f0_hz), f0_hz], axis=1),
        has_pitch=np.stack([no_label, has_pitch], axis=1),
        grid=GRID,
    )
    taken: dict[str, Callable[[Recording], Recording]] = {
        "full": lambda r: r,
        "stems": unknown_pitch,
        "pitch": unknown_stems,
        MIXTURES: lambda r: unknown_pitch(unknown_stems(r)),
    }
    return taken[view](recording)


def read_labels(path: pathlib.Path, *, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """F0 of the voice, and which frames are labelled: one MIDI semitone per line, 0 = unvoiced.

    Line i is centred at 0.020 + 0.020 i s, so it labels frame i + 1; frame 0 has none.
    """
    semitones = notes.read_semitones(path)
    expected = (samples - LABEL_WINDOW_SAMPLES) // LABEL_HOP_SAMPLES + 1
    if len(semitones) != expected:
        raise BadTrack(
            f"{path}: {len(semitones)} labels, expected {expected} for {samples} samples of audio"
        )
    frames = GRID.frame_count(samples)
    f0_hz, has_pitch = np.zeros(frames, np.float32), np.zeros(frames, bool)
    count = min(len(semitones), frames - 1)
    f0_hz[1 : 1 + count] = notes.semitones_hz(semitones)[:count]
    has_pitch[1 : 1 + count] = True
    return f0_hz, has_pitch
