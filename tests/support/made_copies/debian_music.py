"""Made-up music packages of Debian, installed or unpacked: folders and archives."""

import pathlib
import tempfile
import zipfile

from made_copies.audio_sets import write_audio
from majl_jax.datasets.readers import debian_music


def write_package(root: pathlib.Path, package: str, *names: str, seconds: float = 1.0) -> None:
    """Tones under these names where the package has its music, in an archive if it has one."""
    place = root / debian_music.PACKAGES[package]
    if place.suffix not in debian_music.ARCHIVES:
        for name in names:
            write_audio(place / name, seconds)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(place, "w") as archive:
        for name in names:
            archive.write(write_audio(pathlib.Path(folder) / name, seconds), f"sound/{name}")
        archive.writestr("sound/readme.txt", "nothing to hear")


def write_copy(root: pathlib.Path) -> None:
    """Two packages, one of them an archive."""
    write_package(root, "colobot-common-sounds", "Proton.ogg")
    write_package(root, "nexuiz-music", "stairs.ogg", "ninesix.ogg")
