"""One reader per data set; `READERS` names them all."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from etils import epath

from majl_jax.datasets import records
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import (
    audio_folder,
    bach10,
    dagstuhl_choirset,
    debian_music,
    e_gmd,
    fma,
    fretsonfire,
    guitarset,
    ikala,
    maestro,
    medleydb,
    mir1k,
    mir_st500,
    modules,
    musdb18,
    musicnet,
    named_stems,
    nsynth,
    slakh,
    stem_folders,
    su,
    trios,
    ultrastar,
    urmp,
    vocadito,
)
from majl_jax.datasets.readers.rendered import band, choir, chorales, drums, quartets
from majl_jax.datasets.synthesis import rendering
from majl_jax.datasets.track import Track


@dataclasses.dataclass(frozen=True)
class Reader:
    """How a data set is listed: `tracks(source, *, grid, seed)`, grid being a `Grid`.

    voices: of its pitch labels, see `records.Layout`. find_stems: from the source, where they
      depend on it. sound: "real" recordings, "synthetic" ones, or the user's "own files". needs:
      packages that it cannot do without, by the names that pip knows them by.
    octave_known: of its pitch labels, see `records.Layout`. flags: arguments that `tracks` takes
      besides, each a flag of majl_jax.prepare.
    """

    tracks: Callable[..., list[Track]]
    stems: tuple[str, ...]
    channels: tuple[int, ...] = (1,)  # the numbers of channels it can give, the usual one first
    version: int = 1  # counted up when the reader gives other audio or labels than before
    needs_source: bool = True
    voices: int = 0
    sound: str = "real"
    octave_known: bool = True
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    find_stems: Callable[..., tuple[str, ...]] | None = None

    def stems_of(self, source: str | None, **told: Any) -> tuple[str, ...]:
        """The names of the stems of the copy below `source`; told: what its flags say."""
        return self.find_stems(source, **told) if self.find_stems else self.stems


RENDERED = ("midirenderer", "music21", "pretty_midi")


def _chorales(view: str) -> Reader:
    tracks = functools.partial(chorales.tracks, view=view)
    return Reader(tracks, rendering.STEMS, needs_source=False, sound="synthetic", needs=RENDERED)


def _mir1k(**which: Any) -> Reader:
    return Reader(functools.partial(mir1k.tracks, **which), mir1k.STEMS, version=2)


def _ikala(split_by: str) -> Reader:
    return Reader(functools.partial(ikala.tracks, split_by=split_by), ikala.STEMS)


def _musdb18(edition: str, *, with_medleydb: bool = True) -> Reader:
    tracks = functools.partial(musdb18.tracks, edition=edition, with_medleydb=with_medleydb)
    return Reader(tracks, musdb18.STEMS, channels=(1, 2))


def _slakh(edition: str) -> Reader:
    tracks = functools.partial(slakh.tracks, edition=edition)
    return Reader(tracks, slakh.STEMS, sound="synthetic")


def _stem_folders(layout: str) -> Reader:
    return Reader(
        functools.partial(stem_folders.tracks, layout=layout),
        stems=(),
        channels=(1, 2),
        sound="own files",
        find_stems=functools.partial(stem_folders.find_stems, layout=layout),
    )


def _urmp_mixes(half: str = "") -> Reader:
    tracks = functools.partial(urmp.tracks, view="mixture", half=half)
    return Reader(tracks, urmp.MIXTURE, voices=urmp.MIXTURE_VOICES)


def _of(
    module: Any, *, channels: tuple[int, ...] = (1,), built_in: bool = False, sound: str = ""
) -> Reader:
    """A module that has one view only, or whose usual one is meant."""
    return Reader(
        module.tracks,
        module.STEMS,
        channels,
        needs_source=not built_in,
        voices=module.VOICES,
        sound=sound or ("synthetic" if built_in else "real"),
        needs=RENDERED if built_in else (),
    )


READERS: dict[str, Reader] = {
    "chorales": _chorales("full"),
    "chorales_stems": _chorales("stems"),
    "chorales_pitch": _chorales("pitch"),
    "mir1k": _mir1k(split_by="singer"),
    "mir1k_songs": _mir1k(split_by="song"),
    "mir1k_author": _mir1k(split_by="clip"),
    "mir1k_few": _mir1k(view="full"),
    "mir1k_stems": _mir1k(view="stems"),
    "mir1k_pitch": _mir1k(view="pitch"),
    "mir1k_3": _mir1k(percent=3),
    "mir1k_12": _mir1k(percent=12),
    "mir1k_50": _mir1k(percent=50),
    "mir1k_mixtures": _mir1k(view="mixtures"),
    "mir1k_rest_3": _mir1k(view="mixtures", percent=3, rest=True),
    "mir1k_rest_12": _mir1k(view="mixtures", percent=12, rest=True),
    "mir1k_rest_50": _mir1k(view="mixtures", percent=50, rest=True),
    "musdb18": _musdb18("aac"),
    "musdb18_hq": _musdb18("wav"),
    "musdb18_no_medleydb": _musdb18("aac", with_medleydb=False),
    "musdb18_hq_no_medleydb": _musdb18("wav", with_medleydb=False),
    "medleydb": Reader(medleydb.tracks, medleydb.STEMS),
    "ikala": _ikala("singer"),
    "ikala_songs": _ikala("song"),
    "vocadito": _of(vocadito),
    "mir_st500": Reader(mir_st500.tracks, mir_st500.STEMS),
    "ultrastar": Reader(
        ultrastar.tracks, ultrastar.STEMS, octave_known=False, flags=("octave", "margin_s")
    ),
    "quartets": _of(quartets, built_in=True),
    "quartets_unlabelled": dataclasses.replace(
        _of(quartets, built_in=True), tracks=functools.partial(quartets.tracks, view="unlabelled")
    ),
    "ensemble": Reader(
        functools.partial(quartets.tracks, view="ensemble"),
        tuple(quartets.ENSEMBLE),
        needs_source=False,
        sound="synthetic",
        needs=RENDERED,
    ),
    "drums": _of(drums, built_in=True),
    "drum_kit": dataclasses.replace(
        _of(drums, built_in=True),
        tracks=functools.partial(drums.tracks, view="kit"),
        stems=drums.KIT_STEMS,
    ),
    "band": dataclasses.replace(_of(band, built_in=True), needs=(*RENDERED, "mido")),
    "choir": _of(choir, built_in=True),
    "slakh2100": _slakh("original"),
    "slakh2100_redux": _slakh("redux"),
    "slakh2100_author": _slakh("author"),
    "babyslakh": _slakh("baby"),
    "dagstuhl_choirset": _of(dagstuhl_choirset),
    "urmp": _of(urmp),
    "urmp_mixes": _urmp_mixes(),
    "urmp_t1": _urmp_mixes("T1"),
    "urmp_t2": _urmp_mixes("T2"),
    "bach10": _of(bach10),
    "su": _of(su),
    "trios": _of(trios),
    "musicnet": _of(musicnet),
    "guitarset": _of(guitarset),
    "maestro": _of(maestro),
    "nsynth": _of(nsynth, sound="synthetic"),
    "fma": _of(fma, channels=(1, 2)),
    "debian_music": _of(debian_music, channels=(1, 2)),
    "fretsonfire": _of(fretsonfire, channels=(1, 2)),
    "modules": _of(modules, channels=(1, 2)),
    "modules_parts": Reader(
        functools.partial(modules.tracks, view="parts"), modules.PARTS, channels=(1, 2)
    ),
    "modules_pitch": Reader(
        functools.partial(modules.tracks, view="pitch"),
        modules.VIEWS["pitch"],
        channels=(1, 2),
        voices=modules.MIXTURE_VOICES,
    ),
    "e_gmd": _of(e_gmd, sound="synthetic"),
    "audio_folder": _of(audio_folder, channels=(1, 2), sound="own files"),
    "stems_coherent": _stem_folders("by_song"),
    "stems_coherent_by_source": _stem_folders("by_source"),
    "stems_incoherent": _stem_folders("incoherent"),
    "stems_named": Reader(
        named_stems.tracks,
        stems=(),
        channels=(1, 2),
        sound="own files",
        flags=("names",),
        find_stems=named_stems.find_stems,
    ),
}


def how_to_prepare(directory: records.Folder, grid: Grid | None = None) -> str:
    """The command that makes the data set in this folder, on a grid if that matters.

    --source=FOLDER stands for the copy of the data set, where its reader needs one.
    """
    reader = READERS.get(epath.Path(directory).name)
    flags = [] if reader is None or not reader.needs_source else ["--source=FOLDER"]
    if grid is not None:
        flags += [f"--{field}={value}" for field, value in vars(grid).items()]
    return records.prepare_command(directory, *flags)
