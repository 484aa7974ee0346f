"""`maestro`: MAESTRO, 200 hours of piano with the keys and pedals as played (Hawthorne et al.
2019).

Mixture and pitches only. A note lasts as long as it rings: under the sustain pedal, until that
goes up or the key is struck again. Splits are the data set's own.
"""

import functools
import pathlib

from majl_jax.datasets import notes, source_files
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.source_files import SPLITS, find_table
from majl_jax.datasets.track import Track

STEMS = notes.MIXTURE
VOICES = 88  # the keys of a piano
COLUMNS = ("split", "midi_filename", "audio_filename", "duration")
COPY = source_files.Copy(
    "MAESTRO", "maestro-v3.0.0.csv, and YEAR/NAME.wav (.flac, .ogg, .mp3) with YEAR/NAME.midi"
)
NO_AUDIO = "no audio: the file that maestro-v*.csv names is missing"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The performances that the table below `source` lists; those without audio are left out."""
    del seed
    folder, rows = find_table(source, "maestro-v*.csv", COLUMNS, copy=COPY)
    out = []
    for row in sorted(rows, key=lambda row: row["audio_filename"]):
        audio, midi = folder / row["audio_filename"], folder / row["midi_filename"]
        found = source_files.find_audio(audio)
        out.append(
            Track(
                id=str(pathlib.PurePosixPath(row["audio_filename"]).with_suffix("")),
                split=SPLITS[row["split"]],
                group=f"{row.get('canonical_composer', '')}: {row.get('canonical_title', '')}",
                paths=(found or audio, midi),
                seconds=float(row["duration"]),
                load=functools.partial(
                    notes.load_labelled,
                    found or audio,
                    midi,
                    read=notes.read_midi,
                    voices=VOICES,
                    grid=grid,
                ),
                left_out="" if found else NO_AUDIO,
            )
        )
    if all(one.left_out for one in out):
        raise COPY.lacking(folder, f"audio of any of its {len(out)} performances")
    return out
