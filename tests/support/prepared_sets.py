"""A small data set on disk, shared by the tests of datasets and of prepare."""

import shutil

import made_songs
import pytest
from made_records import LAYOUT, made_track

from majl_jax.datasets import builder, records


@pytest.fixture(scope="session")
def tracks() -> list[records.Record]:
    """Longer than a record, of whole and broken hops, and one shorter than a record."""
    return [made_track("long/one", 163), made_track("short", 27), made_track("b", 120)]


@pytest.fixture(scope="session")
def cut_records(tracks) -> list[records.Record]:
    return [record for one in tracks for record in records.cut(one, LAYOUT)]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, tracks, cut_records):
    """A data set on disk, tfrecord, with the splits train (all) and valid (one track)."""
    directory = tmp_path_factory.mktemp("prepared") / "made"
    splits = {"train": cut_records, "valid": records.cut(tracks[2], LAYOUT)}
    builder.write_dataset(directory, splits, layout=LAYOUT, options={"seed": 3})
    return directory


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A data set without a fault, as tfrecord: not to be changed."""
    report = {"tracks": made_songs.SPLITS, "skipped": {}}
    folder = tmp_path_factory.mktemp("sound") / "made"
    return made_songs.write(
        folder, made_songs.cut(made_songs.songs()), report=report, file_format="tfrecord"
    )


@pytest.fixture
def copied(sound, tmp_path):
    """A copy of it, to be spoilt."""
    return shutil.copytree(sound, tmp_path / "made")
