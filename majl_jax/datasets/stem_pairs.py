"""Made-up songs of unrelated files, one of each source: what `stems_incoherent` prepares."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

from majl_jax.audio import files
from majl_jax.datasets import source_files
from majl_jax.datasets.splits import FEWEST, seeded_split, shuffled
from majl_jax.datasets.streamed import Streamed
from majl_jax.datasets.track import Track

SPLITS = ("train", "valid", "test")
Files = Mapping[
    str, Mapping[pathlib.Path, str]
]  # by source, each with its split, "" if it has none


def tracks(
    given: Files, *, root: pathlib.Path, of_files: Callable[..., Streamed], seed: int
) -> list[Track]:
    """The pairs of each split; a file that is no audio, or visibly cut off, is a track of its own,
    which cannot be loaded.

    of_files: from {source: file} to its audio. ValueError where a source has no file in a split
      that others have.
    """
    seconds: dict[pathlib.Path, float] = {}
    out = []
    for source, paths in given.items():
        for path, split in paths.items():
            try:
                seconds[path] = files.inspect(path, headers_only=True).seconds
            except files.AudioFileError:
                name, alone = path.relative_to(root).as_posix(), {source: path}
                out.append(
                    Track(
                        id=source_files.identity(name),
                        split=split or "train",
                        paths=(path,),
                        load=of_files(alone).load,
                    )
                )
    good = {
        source: {path: split for path, split in paths.items() if path in seconds}
        for source, paths in given.items()
    }
    splits = fill_splits(good, root=root, seed=seed)
    for split in SPLITS:
        names = {
            source: [path.relative_to(root).as_posix() for path in paths if splits[path] == split]
            for source, paths in good.items()
        }
        for pair in pairs(names, split=split, seed=seed):
            paths = {source: root / name for source, name in zip(given, pair, strict=True)}
            out.append(
                Track(
                    id=source_files.identity(" + ".join(pair)),
                    split=split,
                    paths=tuple(paths.values()),
                    seconds=max(seconds[path] for path in paths.values()),
                    load=of_files(paths).load,
                    streamed=of_files(paths),
                )
            )
    return out


def fill_splits(given: Files, *, root: pathlib.Path, seed: int) -> dict[pathlib.Path, str]:
    """The split of every file: its own, or one drawn by the seed among the files of its source.

    All are train where a source has too few files for three splits.
    """
    out: dict[pathlib.Path, str] = {}
    too_few = min(map(len, given.values())) < FEWEST
    for paths in given.values():
        drawn = seeded_split((path.relative_to(root).as_posix() for path in paths), seed=seed)
        for path, split in paths.items():
            out[path] = split or ("train" if too_few else drawn[path.relative_to(root).as_posix()])
    return out


def pairs(
    names: Mapping[str, Sequence[str]], *, split: str = "", seed: int
) -> list[tuple[str, ...]]:
    """Tuples of one name per source, as many as the source with the most has: none is lost, none
    there twice.

    A source with fewer goes through its names again, every time in another order. ValueError where
    one of them has none.
    """
    count = max(map(len, names.values()))
    if lacking := [source for source, given in names.items() if count and not given]:
        raise ValueError(
            f"{split} has no usable file of {', '.join(lacking)}, but of other sources: expected"
            " the same sources in every split; is a folder misspelt?"
        )
    columns = []
    for source, given in names.items():
        column: list[str] = []
        while len(column) < count:
            column += shuffled(given, seed=f"{seed} {source} {len(column)}")
        columns.append(column[:count])
    return list(zip(*columns, strict=True))
