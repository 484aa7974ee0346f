"""`modules`, `modules_parts`, `modules_pitch`: tracker modules of games in Debian, played with
libopenmpt sample by sample: music whose stems sum to the mixture.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Collection

import numpy as np
from jaxtyping import Float32

from majl_jax.audio import module_files, openmpt, resampling
from majl_jax.datasets import module_notes, module_parts, notes, source_files, track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.splits import SPLITS_FOLDER, read_split
from majl_jax.datasets.track import Recording, Track

STEMS = (module_parts.BASS, module_parts.DRUMS, module_parts.OTHER)
PARTS = ("part1", "part2", "part3", "part4")
VIEWS = {"stems": STEMS, "parts": PARTS, "pitch": notes.MIXTURE}
VOICES = 0
MIXTURE_VOICES = 16  # of the view "pitch"
SPLIT_LIST = SPLITS_FOLDER / "modules.txt"
# Played at this rate or the grid's, whichever is higher: players do not filter for a lower one.
PLAYED_HZ = 44_100
PEAK = 0.98  # of the mixture; modules play from -15 to +6 dB of full scale
# With more than this share of the energy of unsure samples, the stems of a module are no label.
UNSURE_SHARE = 0.05


@dataclasses.dataclass(frozen=True)
class Listed:
    """A row of the list."""

    path: str
    package: str
    licence: str
    author: str
    seconds: float
    split: str
    left_out: str = ""

    @property
    def id(self) -> str:
        """The package and the name of the file."""
        return f"{self.package}/{pathlib.PurePosixPath(self.path).name}"


def listed() -> list[Listed]:
    """The modules of the list, in its order; what has a reason for a split is left out of train."""
    rows = []
    for path, package, licence, author, seconds, split in read_split(SPLIT_LIST):
        used = split in ("train", "valid", "test")
        reason = "" if used else split.replace("_", " ")
        about = package, licence, author, float(seconds)
        rows.append(Listed(path, *about, split if used else "train", reason))
    return rows


def install(packages: Collection[str]) -> str:
    """The command that installs them."""
    return f"apt-get install --no-install-recommends {' '.join(sorted(packages))}"


def copy() -> source_files.Copy:
    """What is expected at --source, with the command that brings it."""
    packages = {one.package for one in listed() if not one.left_out}
    return source_files.Copy(
        "Debian's packages with tracker modules",
        f"files such as {listed()[0].path} (/ where `{install([*packages, openmpt.PACKAGE])}` put "
        "them; the packages unpacked, in one folder or one each, will do)",
    )


def tracks(source: str | None, *, grid: Grid, seed: int = 0, view: str = "stems") -> list[Track]:
    """The modules of the list below `source`, the root of a file system or a folder that the
    packages were unpacked into; what is not there is left out.

    view: "stems", bass, drums and other; "parts", the three loudest samples and the others; or
      "pitch", the mixture and its pitches.
    Raises ModuleNotFoundError without libopenmpt.
    """
    del seed
    root = copy().root(source)
    rows = listed()
    paths = {one.id: find(root, one) for one in rows}
    lacking = {one.package for one in rows if not one.left_out and not paths[one.id]}
    if not any(paths.values()):
        raise copy().nothing(root)
    openmpt.require()
    found = []
    for one in rows:
        path = paths[one.id]
        reason = one.left_out
        if path is None and not reason:
            reason = f"not there: `{install(lacking)}`"
        load_it = functools.partial(load, path or root / one.path, grid=grid, view=view)
        files = (path,) if path else ()
        found.append(
            Track(one.id, one.split, load_it, one.package, files, one.seconds, left_out=reason)
        )
    return found


def find(root: pathlib.Path, one: Listed) -> pathlib.Path | None:
    """Where a module lies below the root, or below a folder of its package's name."""
    places = (root / one.path, root / one.package / one.path)
    return next((path for path in places if path.is_file()), None)


def load(path: pathlib.Path, *, grid: Grid, view: str = "stems") -> Recording:
    """The stems of a module, by one gain; their sum is what libopenmpt plays.

    Of the view "stems" they are no label where more of the energy than `UNSURE_SHARE` is that of
    samples whose stem is unsure; where it is less, these are in other.
    """
    data = path.read_bytes()
    file = module_files.read(data, str(path))
    data = module_files.steady(data)
    if view == "pitch":
        return load_pitch(data, file, grid=grid)
    groups, unsure = groups_of(data, file, str(path), view=view)
    stems = [render(data, file, group, grid=grid) for group in groups]
    rest = render(data, file, unsure, grid=grid) if unsure else np.zeros_like(stems[-1])
    energies = [float(np.sum(np.square(one, dtype=np.float64))) for one in [*stems, rest]]
    stems[-1] += rest
    audio = _scaled(stems, grid=grid)
    f0_hz, has_pitch = track.no_pitch(len(audio), stems=len(stems), grid=grid)
    recording = Recording(
        audio=audio,
        stems=VIEWS[view],
        has_stems=np.ones(len(stems), bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
    )
    known = energies[-1] <= UNSURE_SHARE * sum(energies)
    return recording if known else track.unknown_stems(recording)


def load_pitch(data: bytes, file: module_files.ModuleFile, *, grid: Grid) -> Recording:
    """The mixture of a module with the pitches of its channels, labels where the sound agrees."""
    audio = _scaled([render(data, file, range(len(file.samples)), grid=grid)], grid=grid)
    frames = grid.frame_count(len(audio))
    checked = module_notes.check(data, file, grid=grid, frames=frames)
    f0_hz, has_pitch = checked.labels(MIXTURE_VOICES)
    return Recording(
        audio=audio,
        stems=notes.MIXTURE,
        has_stems=np.zeros(1, bool),
        f0_hz=f0_hz,
        has_pitch=has_pitch,
        grid=grid,
        voices=MIXTURE_VOICES,
    )


def _scaled(stems: list[np.ndarray], *, grid: Grid) -> Float32[np.ndarray, "time stem channel"]:
    """The stems side by side, turned down together where their sum is beyond `PEAK`."""
    audio = track.stack(stems, grid=grid)
    return audio * np.float32(min(1.0, PEAK / max(float(np.abs(audio.sum(axis=1)).max()), PEAK)))


def groups_of(
    data: bytes, file: module_files.ModuleFile, name: str, *, view: str
) -> tuple[list[set[int]], set[int]]:
    """The samples of each stem, and those whose stem is unsure: none in the view "parts".

    What the patterns seem not to play is in the last one, so that nothing is in no stem.
    """
    uses = module_parts.uses(openmpt.Module(data, name), file)
    sounds = {
        number: module_parts.listen(file, data, use, use.usual) for number, use in uses.items()
    }
    idle = {*range(len(file.samples))} - {*uses}
    if view == "parts":
        *alone, others = _parts(uses, sounds)
        return [*alone, others | idle], set()
    stems = {
        number: module_parts.stem_of_sample(file, use, sounds[number])
        for number, use in uses.items()
    }
    of = {name: {number for number, stem in stems.items() if stem == name} for name in STEMS}
    unsure = {*uses}.difference(*of.values())
    return [of[module_parts.BASS], of[module_parts.DRUMS], of[module_parts.OTHER] | idle], unsure


def _parts(
    uses: dict[int, module_parts.Use], sounds: dict[int, module_parts.Sound]
) -> list[set[int]]:
    """The samples that sound most, one each, and all others."""
    energy = {number: sounds[number].power * sum(use.hits.values()) for number, use in uses.items()}
    order = sorted(energy, key=lambda number: -energy[number])
    groups = [{number} for number in order[: len(PARTS) - 1]]
    groups += [set() for _ in range(len(PARTS) - 1 - len(groups))]
    return [*groups, {*order[len(PARTS) - 1 :]}]


def render(
    data: bytes, file: module_files.ModuleFile, samples: Collection[int], *, grid: Grid
) -> Float32[np.ndarray, "time channel"]:
    """What these samples of a module sound like, all others being silent."""
    others = [one for number, one in enumerate(file.samples) if number not in samples]
    module = openmpt.Module(module_files.silenced(data, others), "")
    rate_hz = max(PLAYED_HZ, grid.sample_rate_hz)
    blocks = module.play(rate_hz, grid.channels)
    return np.concatenate(
        list(resampling.resample_blocks(blocks, source_hz=rate_hz, target_hz=grid.sample_rate_hz))
    )
