"""What lies above a model's band goes to the stems that sound below it, and nothing is lost."""

import numpy as np
import pytest

from majl_jax.audio import resampling
from majl_jax.audio.high_band import HighBand

RATE_HZ, MODEL_HZ, SECONDS = 44_100, 16_000, 0.5
LATE = slice(RATE_HZ // 10, None)  # where the smoothing has come to rest


def noise(seed=0):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal((int(RATE_HZ * SECONDS), 2))).astype(np.float32)


def heard(song):
    """The song as a model of 16 kHz hears it."""
    for rates in ((RATE_HZ, MODEL_HZ), (MODEL_HZ, RATE_HZ)):
        blocks = resampling.resample_blocks([song], source_hz=rates[0], target_hz=rates[1])
        song = np.concatenate(list(blocks))
    return song


def extended(song, stems, pieces=1):
    """The stems with their shares, given in so many pieces."""
    low = heard(song)
    band = HighBand(
        sample_rate_hz=RATE_HZ, model_hz=MODEL_HZ, stems=stems.shape[1], channels=song.shape[1]
    )
    cuts = zip(*(np.array_split(one, pieces) for one in (stems, song, low)), strict=True)
    return np.concatenate([band.add(one, song=x, low=y) for one, x, y in cuts])


def test_a_stem_that_is_all_of_the_song_gets_all_of_the_band():
    song = noise()
    found = extended(song, heard(song)[:, None])
    np.testing.assert_allclose(found[LATE, 0], song[LATE], atol=1e-4)


def test_two_stems_share_the_band_as_they_share_the_octave_below():
    song = noise()
    low = heard(song)
    # Powers of 0.8^2 and 0.2^2 of a song that has nothing else.
    found = extended(song, np.stack([0.8 * low, 0.2 * low], axis=1))
    above = (song - low)[LATE]
    for number, share in enumerate((0.64 / 0.68, 0.04 / 0.68)):
        got = (found[LATE, number] - (0.8, 0.2)[number] * low[LATE]) / share
        np.testing.assert_allclose(got, above, atol=1e-3)


def test_what_no_stem_has_in_the_octave_stays_in_the_rest():
    song = noise()
    silent = np.zeros((len(song), 1, 2), np.float32)
    np.testing.assert_array_equal(extended(song, silent), silent)
    time = np.arange(len(song)) / RATE_HZ
    hum = np.repeat(0.1 * np.sin(2 * np.pi * 200.0 * time)[:, None, None], 2, axis=2)
    found = extended(song, hum.astype(np.float32))
    assert np.std(found[LATE] - hum[LATE]) < 0.01 * np.std(song - heard(song))


def test_silence_gives_silence():
    nothing = np.zeros((RATE_HZ, 2), np.float32)
    assert not extended(nothing, nothing[:, None]).any()


@pytest.mark.parametrize("pieces", [2, 7, 5000])
def test_where_the_song_is_cut_does_not_matter(pieces):
    song = noise()
    stems = np.stack([0.5 * heard(song), 0.1 * heard(noise(1))], axis=1)
    found = extended(song, stems, pieces)
    np.testing.assert_allclose(found, extended(song, stems), atol=1e-6)
