"""Channels whose mean is silence: the loudest is taken, and that is said."""

import warnings

import numpy as np
import pytest
import soundfile

from majl_jax.audio import files

RATE_HZ = 8000


def noise(seconds=3.0, seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(int(seconds * RATE_HZ))).astype(np.float32)


def mixed(path, channels, said=None):
    soundfile.write(path, np.stack(channels, 1), RATE_HZ, subtype="FLOAT")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = np.concatenate(list(files.stream(path, channels=1)))[:, 0]
    assert [str(one.message) for one in caught] == ([] if said is None else [said.format(path)])
    return found


CANCEL = (
    "{}: its channels cancel each other in their mean (has one the wrong polarity?);"
    " channel {} is used instead"
)


@pytest.mark.parametrize("silent_s", [0.0, 1.5])
def test_the_loudest_of_channels_that_cancel_is_taken(tmp_path, silent_s):
    left = np.concatenate([np.zeros(int(silent_s * RATE_HZ), np.float32), noise()])
    found = mixed(tmp_path / "a.wav", [left, -left], CANCEL.format("{}", 1))
    np.testing.assert_array_equal(found, left)
    three = [0.5 * left, -1.5 * left, left]
    found = mixed(tmp_path / "b.wav", three, CANCEL.format("{}", 2))
    np.testing.assert_array_equal(found, three[1])


def test_others_are_their_mean(tmp_path):
    left, right = noise(), noise(seed=1)
    for channels in ([left, right], [left, left], [left, 0 * left], [left, -0.8 * left]):
        found = mixed(tmp_path / "a.wav", channels)
        np.testing.assert_allclose(found, np.mean(channels, 0), atol=1e-7)
    # Out of phase in its first seconds only: a sound of the song, no fault of the file.
    other = np.concatenate([-left[: 2 * RATE_HZ], right[2 * RATE_HZ :]])
    found = mixed(tmp_path / "a.wav", [left, other])
    np.testing.assert_allclose(found, (left + other) / 2, atol=1e-7)


def test_whoever_mixes_blocks_by_itself_gets_the_same(tmp_path):
    left = noise()
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], 1), RATE_HZ, subtype="FLOAT")
    with pytest.warns(files.AudioFileWarning, match="cancel each other"):
        mix = files.downmix(tmp_path / "a.wav", 1)
        found = [mix(block) for block in files.stream(tmp_path / "a.wav")]
    np.testing.assert_array_equal(np.concatenate(found)[:, 0], left)
    both = next(files.stream(tmp_path / "a.wav"))
    np.testing.assert_array_equal(files.downmix(tmp_path / "a.wav", 2)(both), both)
