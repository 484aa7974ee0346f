import shutil

import numpy as np
import pytest
from made_records import HOP

from majl_jax.datasets import records
from majl_jax.datasets.input import local_crops
from majl_jax.datasets.input.sources import open_sources
from majl_jax.datasets.shards import DamagedRecordError

SEGMENT = 4 * HOP


def _open(prepared):
    opened = open_sources([(prepared, "train", 1.0)])
    return opened, local_crops.LocalCrops(opened, segment_samples=SEGMENT, hop_samples=HOP)


def test_a_crop_read_alone_is_that_of_the_whole_record(prepared):
    (one,), crops = _open(prepared)
    for number in range(len(one.records)):
        record = records.read_record(one.prepared, "train", int(one.records[number]))
        for start in (3, 0, 2):  # the first time the record is read whole
            frames = slice(start, start + SEGMENT // HOP)
            expected = [
                record["stems"][start * HOP : start * HOP + SEGMENT],
                record["has_stems"].view(np.uint8),
                record["f0_hz"][frames],
                record["has_pitch"][frames].view(np.uint8),
            ]
            for found, wanted in zip(crops.read(0, number, start), expected, strict=True):
                assert found.dtype == wanted.dtype
                np.testing.assert_array_equal(found, wanted.ravel())


def test_a_damaged_record_is_refused_at_its_first_use(prepared, tmp_path):
    (one,), crops = _open(shutil.copytree(prepared, tmp_path / "copy"))
    split = one.prepared.split("train")
    place = int(one.records[1])
    path = one.prepared.shard_path("train", int(split.shard[place]))
    whole = bytearray(path.read_bytes())
    whole[int(split.offset[place] + split.length[place]) - 50] ^= 1
    path.write_bytes(bytes(whole))
    crops.read(0, 0, 0)
    with pytest.raises(DamagedRecordError, match="its checksum is wrong"):
        crops.read(0, 1, 0)
