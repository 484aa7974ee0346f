"""`maestro`: MAESTRO, 200 hours of piano with the keys and pedals as played (Hawthorne et al. 2019).

Mixture and pitches only. A note lasts as long as it rings: under the sustain pedal, until that goes up or
the key is struck again. Splits are the data set's own.
"""

import functools
import pathlib

from majl_jax.datasets import note_labels
from majl_jax.datasets.track import Track

STEMS = note_labels.MIXTURE
VOICES = 88  # the keys of a piano
SPLITS = {"train": "train", "validation": "valid", "test": "test"}
COLUMNS = ("split", "midi_filename", "audio_filename", "duration")
TREE = "maestro-v3.0.0.csv, and YEAR/NAME.wav (.flac, .ogg, .mp3) with YEAR/NAME.midi"
NO_AUDIO = "no audio: the file that maestro-v*.csv names is missing"


def tracks(
    source: str | None,
    *,
    sample_rate_hz: int,
    hop_samples: int,
    channels: int = 1,
    seed: int = 0,
) -> list[Track]:
    """The performances that the table below `source` lists; those without audio are left out."""
    del seed
    folder, rows = find_table(source, "maestro-v*.csv", COLUMNS, title="MAESTRO", tree=TREE)
    out = []
    for row in sorted(rows, key=lambda row: row["audio_filename"]):
        audio, midi = folder / row["audio_filename"], folder / row["midi_filename"]
        found = note_labels.find_audio(audio)
        out.append(
            Track(
                id=str(pathlib.PurePosixPath(row["audio_filename"]).with_suffix("")),
                split=SPLITS[row["split"]],
                group=f"{row.get('canonical_composer', '')}: {row.get('canonical_title', '')}",
                paths=(found or audio, midi),
                seconds=float(row["duration"]),
                load=functools.partial(
                    note_labels.load_labelled,
                    found or audio,
                    midi,
                    read=note_labels.read_midi,
                    voices=VOICES,
                    sample_rate_hz=sample_rate_hz,
                    hop_samples=hop_samples,
                    channels=channels,
                ),
                left_out="" if found else NO_AUDIO,
            )
        )
    if all(one.left_out for one in out):
        raise FileNotFoundError(
            f"{folder} has no audio of any of its {len(out)} performances; expected {TREE} in it"
        )
    return out


def find_table(
    source: str | None, pattern: str, columns: tuple[str, ...], *, title: str, tree: str
) -> tuple[pathlib.Path, list[dict[str, str]]]:
    """The folder of a copy and the rows of its table, in which `split` and `duration` are checked.

    The table is the last file called `pattern` in `source`, or one folder further in, as the
    archives unpack. Raises FileNotFoundError without one, BadTrack for bad rows.
    """
    if source is None:
        raise ValueError(f"--source is missing: the folder of {title}; expected {tree} in it")
    root = pathlib.Path(source)
    found = sorted(root.glob(pattern)) or sorted(root.glob(f"*/{pattern}"))
    if not found:
        raise FileNotFoundError(f"{source} is no copy of {title}: expected {tree} in it")
    rows = note_labels.read_table(found[-1], columns)
    for number, row in enumerate(rows, 1):
        place = f"{found[-1]}, row {number}"
        if row["split"] not in SPLITS:
            raise ValueError(f"{place}: split is {row['split']!r}; expected one of {[*SPLITS]}")
        for column in columns:
            path = pathlib.PurePosixPath(row[column])
            if column.endswith("_filename") and (path.is_absolute() or ".." in path.parts):
                raise ValueError(f"{place}: {column} is {row[column]!r}; expected a path inside")
        try:
            float(row["duration"])
        except ValueError:
            raise ValueError(
                f"{place}: duration is {row['duration']!r}; expected seconds"
            ) from None
    if not rows:
        raise ValueError(f"{found[-1]}: lists nothing; copy it again")
    return found[-1].parent, rows
