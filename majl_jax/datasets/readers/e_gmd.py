"""`e_gmd`: E-GMD, drums alone, 444 hours on 43 kits (Callender et al. 2020). Audio only, no labels.

Splits are the data set's own.
"""

import pathlib

from majl_jax.datasets import notes, source_files, streamed
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.track import Track

STEMS = notes.MIXTURE
VOICES = 1
COLUMNS = ("split", "audio_filename", "duration")
COPY = source_files.Copy(
    "E-GMD",
    "e-gmd-v1.0.0.csv, and the files it names, drummerN/SESSION/NAME.wav (.flac, .ogg, .mp3)",
)
NO_AUDIO = "no audio: the file that e-gmd-v*.csv names is missing"


def tracks(source: str | None, *, grid: Grid, seed: int = 0) -> list[Track]:
    """The recordings that the table below `source` lists; those without audio are left out."""
    del seed
    folder, rows = source_files.find_table(source, "e-gmd-v*.csv", COLUMNS, copy=COPY)
    out = []
    for row in sorted(rows, key=lambda row: row["audio_filename"]):
        audio = folder / row["audio_filename"]
        found = source_files.find_audio(audio)
        out.append(
            Track(
                id=str(pathlib.PurePosixPath(row["audio_filename"]).with_suffix("")),
                split=source_files.SPLITS[row["split"]],
                group=row.get("id", ""),  # one performance, played on every kit
                paths=(found or audio,),
                seconds=float(row["duration"]),
                load=streamed.unlabelled(found or audio, grid=grid).load,
                left_out="" if found else NO_AUDIO,
            )
        )
    if all(one.left_out for one in out):
        raise COPY.lacking(folder, f"audio of any of its {len(out)} recordings")
    return out
