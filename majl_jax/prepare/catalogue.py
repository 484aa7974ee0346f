"""`prepare --list`: what data sets there are, and which are there, a line for each."""

import importlib.util
import pathlib
import textwrap
from collections.abc import Mapping
from typing import NamedTuple

from etils import epath

from majl_jax.datasets import readers, records
from majl_jax.datasets.readers import debian_music, fretsonfire, modules

ROOT = pathlib.Path("/")  # where packages are installed


class Entry(NamedTuple):
    """What is known of a data set before it is there; empty: it depends on your files."""

    names: tuple[str, ...]  # of --dataset
    what: str
    labels: str
    size: str
    licence: str
    origin: str


RENDERED, PACKAGED = "rendered here", "Debian"
INSTALLED = "installed: --source=/"
_TABLE = """
chorales chorales_stems chorales_pitch | Bach chorales | stems, pitch | 5.0 h | per score | rendered here
quartets quartets_unlabelled ensemble drums | quartets, grooves | stems, pitch | 56 min | per score | rendered here
band choir drum_kit | songs of a game, hymns | stems; choir: pitch | 117 min | per song | rendered here
mir1k mir1k_songs mir1k_author mir1k_few mir1k_stems mir1k_pitch mir1k_3 mir1k_12 mir1k_50 mir1k_mixtures mir1k_rest_3 mir1k_rest_12 mir1k_rest_50 | Chinese pop | voice, rest, pitch | 133 min, 0.5 GB | none stated | its authors
ikala ikala_songs | Chinese pop | voice, rest, pitch | 126 min, 1.3 GB | research | no longer distributed
vocadito | solo singing | pitch | 40 recordings | CC BY 4.0 | zenodo.org/record/5578807
mir_st500 | pop songs | notes of the voice | 500 songs | licence not verified | york135/singing_transcription_ICASSP2021
ultrastar | karaoke songs | notes of the voice, octave as heard | | per song | your own; UltraStar-Deluxe/songs
medleydb | songs of many kinds | voice, rest, pitch | 30 of 196 songs | CC BY-NC-SA 4.0 | medleydb.weebly.com
musdb18 musdb18_hq musdb18_no_medleydb musdb18_hq_no_medleydb | pop and rock | drums, bass, other, vocals | 10 h, 4.7 or 31 GB | academic use | zenodo.org/record/1117372, 3338373
slakh2100 slakh2100_redux slakh2100_author babyslakh | rendered songs | bass, drums, guitar, piano, others | 145 h | CC BY 4.0 | zenodo.org/record/4599666, 4603870
fretsonfire | metal and rock | guitar, rest | 27 min, 58 MB | CC BY-SA 3.0, MIT | Debian
modules modules_parts modules_pitch | tracker modules of games | bass, drums, other; parts; pitches | 7.0 h | per module | Debian
debian_music | music of free games | none | 17.5 h, 816 MB | GPL, CC BY(-SA) and others | Debian
dagstuhl_choirset | choir | female, male voices | 55.5 min | CC BY 4.0 | zenodo.org/record/4618287
stems_coherent stems_coherent_by_source stems_incoherent stems_named | stems of your own | stems | | | your own
urmp urmp_mixes urmp_t1 urmp_t2 | chamber music | parts, pitches | 44 pieces | licence not verified | Dryad
bach10 | Bach chorales, recorded | parts, pitch | 10 pieces | research | its authors
guitarset | acoustic guitar | pitches | 3 h | MIT by mirdata | zenodo.org/record/3371780
musicnet | chamber music | pitches | 34 h | free, per recording | zenodo.org/record/5120004
maestro | piano | pitches | 200 h | CC BY-NC-SA 4.0 | magenta.tensorflow.org/datasets/maestro
su trios | test sets | pitches | minutes | licence not verified | its authors; zenodo.org/record/6797837
nsynth | single notes | pitch | 340 h, 25 GB | CC BY 4.0 | magenta.tensorflow.org/datasets/nsynth
fma | music of all kinds | none | 8,000 to 106,574 songs, 7 to 879 GB | per artist | github.com/mdeff/fma
e_gmd | drums alone | none | 444 h | CC BY 4.0 | magenta.tensorflow.org/datasets/e-gmd
audio_folder | audio of your own | none | | | your own
"""  # noqa: E501  a line for each


def entries() -> list[Entry]:
    """One for each data set, with the names of all its views."""
    rows = [
        [cell.strip() for cell in line.split("|")] for line in _TABLE.splitlines() if line.strip()
    ]
    return [Entry(tuple(names.split()), *others) for names, *others in rows]


def state(entry: Entry, output: records.Folder) -> str:
    """Whether a data set can be prepared as things are, with what lacks, and what is prepared."""
    prepared = [name for name in entry.names if records.is_prepared(epath.Path(output) / name)]
    told = [f"prepared: {', '.join(prepared)}"] if prepared else []
    lacking = {
        package: None
        for name in entry.names
        for package in readers.READERS[name].needs
        if importlib.util.find_spec(package) is None
    }
    if lacking:
        told.append(f"pip install {' '.join(lacking)}")
    elif entry.origin == RENDERED:
        told.append("built in")
    elif entry.origin == PACKAGED:
        told.append(_PACKAGED[entry.names[0]]())
    else:
        told.append("--source=")
    return "; ".join(told)


def _music() -> str:
    """How many of the packages of music are there, and what installs the others."""
    places = debian_music.PACKAGES.items()
    there = {name: bool(debian_music.find_files(ROOT, place)) for name, place in places}
    return _packages(there)


def _modules() -> str:
    """The same of tracker modules: a package is there if all its files of the list are."""
    there: dict[str, bool] = {}
    for one in modules.listed():
        if not one.left_out:
            found = modules.find(ROOT, one) is not None
            there[one.package] = there.get(one.package, True) and found
    return _packages(there)


def _packages(there: Mapping[str, bool]) -> str:
    lacking = [name for name, is_there in there.items() if not is_there]
    if not lacking:
        return INSTALLED
    install = f"{debian_music.INSTALL} {' '.join(lacking)}"
    found = len(there) - len(lacking)
    return f"{found} of {len(there)} packages, {INSTALLED}; {install}" if found else install


def _songs() -> str:
    return INSTALLED if (ROOT / fretsonfire.SONGS).is_dir() else fretsonfire.INSTALL


_PACKAGED = {"debian_music": _music, "fretsonfire": _songs, "modules": _modules}


def text(output: records.Folder, *, width: int) -> str:
    """All data sets, as lines that are cut to a width at words and go on below."""
    lines = []
    for entry in entries():
        facts = (", ".join(entry.names), *entry[1:], f"[{state(entry, output)}]")
        line = " | ".join(filter(None, facts))
        lines += textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines)
