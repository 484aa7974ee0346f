import dataclasses

import made_music
import numpy as np
import pytest

from majl_jax.datasets import builder, records, stem_groups
from majl_jax.evaluation.excerpts import fixed_excerpts, in_batches

GROUPS = stem_groups.parse("band: voice=soprano, drone=bass")["band"]
SAMPLES = 16_000


@pytest.fixture(scope="module")
def band(tmp_path_factory):
    """Two tracks; the second's voice is silent in its first half."""
    folder = tmp_path_factory.mktemp("excerpts") / "band"
    layout = dataclasses.replace(made_music.LAYOUT, hop_samples=64)
    tracks = [made_music.tones(name, frames=400) for name in ("a", "b")]
    tracks[1]["stems"][: len(tracks[1]["stems"]) // 2, 0] = 0
    for track in tracks:
        frames = len(track["stems"]) // 64
        track["f0_hz"] = np.zeros((frames, 2), np.float32)
        track["has_pitch"] = np.zeros((frames, 2), bool)
    cut = (record for track in tracks for record in records.cut(track, layout))
    builder.write_dataset(folder, {"test": cut}, layout=layout)
    return folder, {track["track"]: track["stems"][..., 0] / 32768 for track in tracks}


def _excerpts(band, **options):
    options = {"count": 12, "samples": SAMPLES, "seed": 3} | options
    return list(fixed_excerpts(band[0], "test", GROUPS, **options))


def test_they_are_what_their_names_say_and_always_the_same(band):
    found = _excerpts(band)
    again = _excerpts(band, count=5)
    for one, other in zip(found, again, strict=False):
        assert one.name == other.name
        np.testing.assert_array_equal(one.sources, other.sources)
    assert {one.name.split("@")[0] for one in found} == {"a", "b"}
    for one in found:
        track, second = one.name.split("@")
        start = round(float(second) * made_music.RATE_HZ)
        stems = band[1][track]
        near = [stems[s : s + SAMPLES, ::-1] for s in range(start - 8, start + 9)]
        assert any(np.allclose(one.sources, piece) for piece in near if len(piece) == SAMPLES)
        assert np.all(np.mean(one.sources**2, axis=0) > 10**-4.5)
    assert found[0].name != _excerpts(band, seed=4)[0].name


def test_incoherent_sources_come_from_different_places(band):
    found = _excerpts(band, coherent=False)
    assert all(len(set(one.name.split(" + "))) == 2 for one in found)


def test_what_cannot_be_had_is_said(band):
    with pytest.raises(ValueError, match=r"never sounded together above 20 dB"):
        _excerpts(band, threshold_db=20.0)
    with pytest.raises(
        ValueError, match=r"records of 51200 samples, shorter than excerpts of 60000"
    ):
        _excerpts(band, samples=60_000)


def test_batches_are_filled_up_with_silence(band):
    batches = list(in_batches(iter(_excerpts(band, count=5)), 3))
    assert [len(names) for names, _ in batches] == [3, 2]
    assert all(sources.shape == (3, SAMPLES, 2) for _, sources in batches)
    assert not batches[1][1][2].any()
