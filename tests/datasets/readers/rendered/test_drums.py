"""The drums: their list, and that each groove is a varied, repeatable sound of a drum kit."""

import collections
import functools

import numpy as np
import pytest

from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers import READERS
from majl_jax.datasets.readers.rendered import drums
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.synthesis import rendering

RATE_HZ, HOP = 16000, 320
GRID = Grid(RATE_HZ, HOP)


@functools.cache
def loaded(number: int, seed: int = 0):
    return drums.tracks(seed=seed, grid=GRID)[number].load()


def test_the_list_has_every_style_in_every_split():
    rows = read_split(drums.SPLIT_LIST)
    assert len({name for name, *_ in rows}) == len(rows) == 24
    counts = collections.Counter((split, style) for _, style, _, split in rows)
    assert counts == {
        (split, style): number
        for split, number in (("train", 4), ("valid", 1), ("test", 1))
        for style in drums.PATTERNS
    }
    assert len({kit for _, _, kit, split in rows if split == "train"}) >= 6
    assert [one.id for one in drums.tracks(grid=GRID)] == [name for name, *_ in rows]
    with pytest.raises(ValueError, match="leave out --source"):
        drums.tracks("somewhere", grid=GRID)
    with pytest.raises(ValueError, match="view must be"):
        drums.tracks(view="stems", grid=GRID)


def test_a_groove_is_rendered_alike_twice_and_otherwise_with_another_seed():
    again = drums.tracks(grid=GRID)[1].load()
    np.testing.assert_array_equal(loaded(1).audio, again.audio)
    assert not np.array_equal(loaded(1, seed=1).audio, again.audio)


def test_the_parts_of_a_kit_sum_to_its_groove():
    kit = drums.tracks(view="kit", grid=GRID)
    assert [(one.id, one.split) for one in kit] == [
        (one.id, one.split) for one in drums.tracks(grid=GRID)
    ]
    recording, groove = kit[0].load(), loaded(0).audio[:, 0]
    track.check(recording)
    np.testing.assert_array_equal(recording.audio, kit[0].load().audio)
    assert recording.stems == READERS["drum_kit"].stems
    assert recording.stems == ("kick", "snare", "cymbals", "percussion")
    assert not recording.has_pitch.any() and recording.f0_hz.shape[1] == READERS["drum_kit"].voices
    assert np.all(np.square(recording.audio).mean(axis=(0, 2)) > 1e-6)
    mixture = recording.audio.sum(axis=1)
    peak = max(np.abs(mixture).max(), np.abs(recording.audio).max())
    assert abs(peak - drums.PEAK) < 1e-4
    error = groove - np.vdot(mixture, groove) / np.vdot(mixture, mixture) * mixture
    assert np.sum(groove**2) > 1e5 * np.sum(error**2)  # 50 dB; the files have 16 bits


def test_every_stroke_belongs_to_one_part_of_the_kit():
    keys = np.asarray([drums.KICK, drums.STICK, drums.SNARE, drums.OPEN_HAT, drums.CRASH])
    keys = np.append(keys, [drums.CLAP, drums.LOW_TOM, drums.HIGH_CONGA, drums.COWBELL])
    strokes = drums.Strokes(np.arange(9.0), keys, np.full(9, 90))
    parts = drums.by_part(strokes)
    assert [list(part.onsets_s) for part in parts] == [[0], [1, 2], [3, 4], [5, 6, 7, 8]]
    for name, style, _, _ in read_split(drums.SPLIT_LIST):
        groove = drums.play(style, np.random.default_rng(len(name)))
        assert sum(len(part.keys) for part in drums.by_part(groove)) == len(groove.keys)


def test_a_groove_without_a_part_of_the_kit_has_a_silent_stem():
    kick = drums.Strokes(np.asarray([0.5]), np.asarray([drums.KICK]), np.asarray([90]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drums, "play", lambda style, rng: kick)
        recording = drums.tracks(view="kit", grid=GRID)[0].load()
    assert recording.audio[:, 0].any() and not recording.audio[:, 1:].any()


@pytest.mark.parametrize("number", (0, 3))
def test_a_recording_has_a_peak_below_full_scale_and_no_pitch_label(number):
    recording = loaded(number)
    track.check(recording)
    assert recording.stems == drums.STEMS and recording.has_stems.all()
    assert recording.f0_hz.shape[1] == drums.VOICES and not recording.has_pitch.any()
    assert abs(np.abs(recording.audio.sum(axis=1)).max() - drums.PEAK) < 1e-4
    assert 19.5 < len(recording.audio) / RATE_HZ < 20.5


def test_sound_starts_with_the_strokes():
    strokes = drums.Strokes(np.asarray([0.5, 1.5]), np.asarray([38, 36]), np.asarray([100, 100]))
    midi = drums.midi_bytes(strokes, kit=0, duration_s=2.5)
    sound = rendering.render(midi, sample_rate_hz=RATE_HZ, samples=int(2.5 * RATE_HZ))
    for onset_s in strokes.onsets_s:
        at = int(onset_s * RATE_HZ)
        before, after = sound[at - 800 : at - 160], sound[at : at + 800]
        assert np.abs(after).max() > 20 * np.abs(before).max()


def test_kits_sound_different():
    strokes = drums.Strokes(np.asarray([0.1]), np.asarray([drums.SNARE]), np.asarray([100]))
    sounds = []
    for kit in (0, 24, 25, 40):
        midi = drums.midi_bytes(strokes, kit=kit, duration_s=1.0)
        sounds.append(rendering.render(midi, sample_rate_hz=RATE_HZ, samples=RATE_HZ))
    for first in range(4):
        for second in range(first):
            difference = np.abs(sounds[first] - sounds[second]).max()
            assert difference > 0.1 * np.abs(sounds[first]).max()


@pytest.mark.parametrize("style", sorted(drums.PATTERNS))
def test_grooves_vary_and_stay_in_time(style):
    grooves = [drums.play(style, np.random.default_rng(seed)) for seed in range(20)]
    counts = {len(groove.keys) for groove in grooves}
    assert len(counts) > 10
    for groove in grooves:
        assert np.all(np.diff(groove.onsets_s) >= 0) and groove.onsets_s[0] >= 0
        assert groove.onsets_s[-1] < drums.GROOVE_S
        assert groove.velocities.min() >= 15 and groove.velocities.max() <= 127
        assert np.ptp(groove.velocities) > 10
    # Between the strokes of a sparse groove there is silence, a rock groove goes on.
    mean = np.mean([len(groove.keys) for groove in grooves])
    assert mean < 100 if style == "sparse" else mean > 100


def test_swing_delays_the_second_eighth_note():
    class Steady(np.random.Generator):
        """Draws the middle of everything and leaves no stroke out."""

        def uniform(self, low, high):
            return (low + high) / 2

        def integers(self, high):
            return 0

        def choice(self, values, size=None):
            return np.zeros(size, int) if size else values[-1]

        def random(self):
            return 0.5

        def normal(self, mean, _):
            return mean

    swung = drums.play(
        "swing", Steady(np.random.PCG64(0))
    )  # a ride cymbal on quarters and swung eighths
    rides = swung.onsets_s[swung.keys == drums.RIDE]
    quarter_s = 60 / 120
    np.testing.assert_allclose(np.diff(rides[1:4]), [2 / 3 * quarter_s, 1 / 3 * quarter_s])
