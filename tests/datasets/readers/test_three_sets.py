"""MUSDB18-HQ, URMP and FMA, copies made in their layouts, prepared and streamed in one mixture of
given shares.
"""

import collections
import pathlib

import numpy as np
import pytest
from made_copies import audio_sets, musdb18, urmp

from majl_jax.datasets.input import tf_data
from majl_jax.datasets.input.sources import mixture_sources, parse_shares
from majl_jax.prepare import __main__ as prepare

GRID = ("--sample_rate_hz=22050", "--hop_samples=1024", "--record_seconds=1", "--processes=1")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("three")
    musdb18.write_wav_song(root / "musdb", "A - B")
    for name in ("03_Dance_fl_cl", "04_Allegro_fl_fl"):
        urmp.write_piece(root / "urmp", name)
    audio_sets.write_fma(root / "fma", "000002", "000005")
    for name, source in (("musdb18_hq", "musdb"), ("urmp_mixes", "urmp"), ("fma", "fma")):
        call = [f"--dataset={name}", f"--source={root / source}", f"--output={root / 'out'}"]
        assert prepare.main([*call, *GRID]) == 0
    return root / "out"


def open_batches(prepared: pathlib.Path):
    shares = parse_shares("urmp_mixes: 2, fma, musdb18_hq")
    folders = {prepared / name: share for name, share in shares.items()}
    sources = mixture_sources(
        folders, "train", unlabelled=[prepared / "fma", prepared / "musdb18_hq"]
    )
    return tf_data.open_batches(sources, seed=3, batch_size=8, segment_samples=8 * 1024)


def test_they_come_by_their_shares_with_the_labels_that_may_be_seen(prepared):
    batches = open_batches(prepared)
    found = collections.Counter()
    for _, batch in zip(range(10), batches, strict=False):
        kinds = zip(batch["has_pitch"].any((1, 2)), batch["has_stems"].any(1), strict=True)
        found.update(kinds)
        assert batch["stems"].shape[:2] == (8, 8 * 1024)
    # URMP's mixtures have pitches, MUSDB's songs stems, FMA nothing.
    assert found == {(True, False): 40, (False, True): 20, (False, False): 20}


def test_a_position_in_them_is_exact(prepared):
    whole = [batch for _, batch in zip(range(7), open_batches(prepared), strict=False)]
    first = open_batches(prepared)
    for _ in range(3):
        next(first)
    again = open_batches(prepared)
    again.restore(first.save())
    for expected in whole[3:]:
        found = next(again)
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key])


@pytest.mark.parametrize("text", ["", "fma,", "fma: 0", "fma: x", "fma, fma", "fma: inf", ": 2"])
def test_wrong_shares_are_shown(text):
    with pytest.raises(ValueError, match="expected data sets, each once"):
        parse_shares(text)


def test_shares_add_up_to_one():
    assert parse_shares("fma") == {"fma": 1.0}
    assert parse_shares("fma: 3, musdb18_hq: 1") == {"fma": 0.75, "musdb18_hq": 0.25}
    assert parse_shares("a,b") == {"a": 0.5, "b": 0.5}
