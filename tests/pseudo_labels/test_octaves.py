import numpy as np
import pytest

from majl_jax.audio.pitch import CREPE_BIN_CENTS
from majl_jax.pseudo_labels import octaves

HZ = (10.0 * 2.0 ** (CREPE_BIN_CENTS / 1200.0)).astype(np.float32)


def _settle(heard, f0_hz, has_pitch=None, **options):
    """What is settled where bin `heard[t]` of frame t has the salience 0.8."""
    salience = np.zeros((len(heard), len(HZ)), np.float32)
    salience[np.arange(len(heard)), heard] = 0.8
    known = np.ones(len(heard), bool) if has_pitch is None else has_pitch
    options = {"threshold": 0.7, "tolerance_cents": 50.0} | options
    return octaves.settle(
        salience, np.asarray(f0_hz, np.float32), known, CREPE_BIN_CENTS, **options
    )


@pytest.mark.parametrize("octave", octaves.OCTAVES)
def test_a_note_goes_to_the_octave_in_which_it_is_heard(octave):
    found = _settle([150] * 4, [HZ[150] / 2.0**octave] * 4)
    np.testing.assert_allclose(found.f0_hz, HZ[150], rtol=1e-6)
    assert found.sure.all() and found.notes == found.notes_sure == 1


def test_a_note_is_settled_as_one():
    # Three frames an octave lower, one where it is written.
    found = _settle([90, 90, 90, 150], [HZ[150]] * 4, threshold=0.6)
    np.testing.assert_allclose(found.f0_hz, HZ[150] / 2, rtol=1e-6)
    assert found.sure.all()  # 3/4 of 0.8
    assert not _settle([90, 90, 90, 150], [HZ[150]] * 4, threshold=0.7).sure.any()


def test_notes_follow_each_other_and_unvoiced_or_unknown_frames_are_left_alone():
    f0_hz = [HZ[150], HZ[150], 0.0, HZ[160], HZ[160] * 2, HZ[160] * 2]
    known = np.array([True, True, True, False, True, True])
    found = _settle([150, 150, 5, 5, 160, 160], f0_hz, known)
    np.testing.assert_allclose(found.f0_hz, [*f0_hz[:4], HZ[160], HZ[160]], rtol=1e-6)
    assert found.sure.tolist() == [True, True, True, False, True, True]
    assert (found.notes, found.notes_sure) == (2, 2)


def test_the_tolerance_is_that_of_the_singer():
    near = HZ[150] * 2.0 ** (80 / 1200)
    assert not _settle([150] * 3, [near] * 3).sure.any()
    assert _settle([150] * 3, [near] * 3, tolerance_cents=100.0).sure.all()
