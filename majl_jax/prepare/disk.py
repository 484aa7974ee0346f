"""How much disk the preparation of a data set needs, said and checked beforehand."""

import os
import pathlib
import shutil
from collections.abc import Sequence

from majl_jax.datasets.records import Folder, Layout, is_local
from majl_jax.datasets.track import Track

FULL = "The disk is too full for that; choose another --output or --work, or fewer --tracks."
LEAN = (
    "  too little to keep all of it twice: a loaded track is deleted once it is written, and loaded"
    " again should that be interrupted"
)


def size_mb(tracks: Sequence[Track], layout: Layout) -> float:
    """About how large the shards of the tracks will be."""
    values = len(layout.stems) * layout.channels * layout.sample_rate_hz
    overlap_s = layout.record_samples / layout.sample_rate_hz / 2  # on average, of a last record
    return sum(one.seconds + overlap_s for one in tracks) * values * 2 / 1e6


def check(
    what: str,
    total_mb: float,
    *,
    output: Folder,
    work: pathlib.Path,
    leftovers: Sequence[Folder] = (),
    by_beam: bool = False,
) -> bool:
    """Prints the need of a data set; returns whether loaded tracks cannot be kept until its end.

    Raises OSError where a disk is too full.

    Args:
        what: is printed first.
        total_mb: size of its shards.
        output: the folder that its folder lies in.
        work: the local folder of what is not finished.
        leftovers: folders of an earlier run, whose space is used or set free.
        by_beam: tracks for an object store are loaded there.
    """
    print(f"{what}, about {total_mb:.0f} MB", end="")
    lean = full = False
    needs = _copies(output, work, by_beam=by_beam)
    for folder, copies in needs:
        free_mb = shutil.disk_usage(_existing(folder)).free / 1e6
        print(
            f", {copies * total_mb:.0f} MB while at work; {free_mb:.0f} MB are free in {folder}",
            end="",
        )
        free_mb += sum(size_of(left) / 1e6 for left in leftovers if _same_disk(left, folder))
        if copies == 2 and 2 * total_mb > free_mb:
            lean, copies = True, 1
        full |= copies * total_mb > free_mb
    if not is_local(output):
        print(f", to {output}", end="")
    print(f"\n{LEAN}" if lean and not full else "", flush=True)
    if full:
        raise OSError(FULL)
    return lean


def _copies(output: Folder, work: pathlib.Path, *, by_beam: bool) -> list[tuple[Folder, int]]:
    """How often the audio comes to lie on each of this machine's disks.

    Loaded tracks are one copy. Shards are the other: while they are written, TFDS's sorting area
    shrinks as they grow.
    """
    if not is_local(output):
        return [(work, 1 if by_beam else 2)]  # shards are uploaded from there
    if _same_disk(work, output):
        return [(output, 2)]
    return [(work, 1), (output, 1)]


def size_of(folder: Folder) -> int:
    """Bytes of the files in a folder of a disk, 0 where there is none."""
    if not is_local(folder):
        return 0
    return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())


def _same_disk(one: Folder, other: Folder) -> bool:
    if not (is_local(one) and is_local(other)):
        return False
    return _existing(one).stat().st_dev == _existing(other).stat().st_dev


def _existing(folder: Folder) -> pathlib.Path:
    """The folder, or the nearest above it that is there."""
    absolute = pathlib.Path(os.path.abspath(folder))
    return next(path for path in (absolute, *absolute.parents) if path.exists())
