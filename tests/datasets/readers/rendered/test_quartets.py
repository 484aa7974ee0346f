"""The quartets: their splits and views, and that what sounds is what the labels say."""

import collections
import functools

import numpy as np
import pytest

from majl_jax.datasets import track
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.readers.rendered import quartets
from majl_jax.datasets.splits import read_split
from majl_jax.datasets.synthesis import performance, rendering

RATE_HZ, HOP = 16000, 320
GRID = Grid(RATE_HZ, HOP)
RANGES_MIDI = ((55, 91), (55, 88), (48, 77), (35, 71))  # lowest and highest note of each part


@functools.cache
def scores():
    """The movement of each quartet that is read fastest."""
    movements = sorted(
        {row[0] for row in read_split(quartets.SPLIT_LIST)},
        key=lambda movement: -quartets.score_path(movement).stat().st_size,
    )
    smallest = {movement.rsplit("/", 1)[0]: movement for movement in movements}
    return {movement: quartets.read_score(movement) for movement in smallest.values()}


@functools.cache
def short(seed: int = 0, view: str = "full"):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quartets, "EXCERPT_S", 12.0)
        return quartets.load(
            "mozart/k156/movement1",
            0.0,
            quarters_per_minute=100.0,
            seed=seed,
            view=view,
            grid=GRID,
        )


def test_the_splits_divide_quartets_and_not_movements():
    found = quartets.tracks(grid=GRID)
    assert collections.Counter(one.split for one in found) == {"train": 24, "valid": 8, "test": 16}
    assert len({one.id for one in found}) == len(found)
    splits = collections.defaultdict(set)
    for one in found:
        splits[one.group.rsplit("/", 1)[0]].add(one.split)
    assert len(splits) == 6 and all(len(where) == 1 for where in splits.values())
    unlabelled = quartets.tracks(view="unlabelled", grid=GRID)
    assert [one.id for one in unlabelled] == [one.id for one in found if one.split == "train"]
    with pytest.raises(ValueError, match="view must be"):
        quartets.tracks(view="stems", grid=GRID)
    with pytest.raises(ValueError, match="leave out --source"):
        quartets.tracks("somewhere", grid=GRID)


def test_every_excerpt_has_its_own_notes_within_the_ranges_of_the_parts():
    ends = collections.defaultdict(float)
    for movement, first, tempo, _ in read_split(quartets.SPLIT_LIST):
        first, tempo = float(first), float(tempo)
        assert first >= ends[movement], "two excerpts overlap"
        ends[movement] = first + quartets.EXCERPT_S * 1.1 * tempo / 60
        if movement not in scores():
            continue
        parts = performance.excerpt(scores()[movement], first, ends[movement])
        assert all(len(part) > 10 for part in parts), (movement, first)
        for part, (lowest, highest) in zip(parts, RANGES_MIDI, strict=True):
            pitches = [pitch for note in part for pitch in note.midi]
            assert lowest <= min(pitches) and max(pitches) <= highest, movement


def test_the_parts_of_a_movement_end_together():
    for movement, parts in scores().items():
        last = [part[-1].start for part in parts]  # the length of the last notes may differ
        assert max(last) - min(last) <= 3.0, (movement, last)
        for part in parts:
            starts = [note.start for note in part]
            assert starts == sorted(set(starts)) and all(note.end > note.start for note in part)


def test_an_overfull_measure_of_one_part_does_not_delay_it():
    from music21 import note, stream

    parts = []
    for lengths in ((4.0, 4.0), (4.0, 4.0), (5.0, 4.0)):
        part = stream.Part()
        for number, quarters in enumerate(lengths):
            measure = stream.Measure(number=number + 1)
            measure.append(note.Note("C4", quarterLength=quarters))
            part.append(measure)
        parts.append(part)
    assert parts[2].getElementsByClass("Measure")[1].offset == 5.0
    quartets.align_measures(parts)
    assert [one.getElementsByClass("Measure")[1].offset for one in parts] == [4.0, 4.0, 4.0]
    parts[0].append(stream.Measure(number=3))
    with pytest.raises(track.BadTrack, match="same number"):
        quartets.align_measures(parts)


def test_no_instrument_is_one_of_the_chorales():
    ours = {program for row in quartets.PROGRAMS for program in row}
    assert not ours & {program for row in performance.PROGRAMS for program in row}


@pytest.mark.parametrize("part", range(4))
def test_every_program_has_the_right_pitch(part):
    import librosa

    lowest, highest = RANGES_MIDI[part]
    pitches = np.unique(np.linspace(lowest, highest, 5).astype(int))
    times_s = 0.1 + 0.8 * np.arange(len(pitches))[:, None] + np.asarray([0.0, 0.6])
    seconds = 0.8 * len(pitches) + 0.5
    for program in quartets.PROGRAMS[part]:
        midi = rendering.midi_bytes(
            times_s.astype(np.float32),
            pitches,
            np.full(len(pitches), 90),
            program=program,
            tuning_cents=30.0,
            duration_s=seconds,
        )
        sound = rendering.render(midi, sample_rate_hz=RATE_HZ, samples=int(seconds * RATE_HZ))
        for pitch, (onset_s, _) in zip(pitches, times_s, strict=True):
            true_hz = 440 * 2 ** ((pitch - 69 + 0.3) / 12)
            start = int((onset_s + 0.15) * RATE_HZ)
            found_hz = librosa.yin(
                sound[start : start + int(0.4 * RATE_HZ)],
                fmin=max(true_hz / 2.3, 30),
                fmax=min(true_hz * 2.3, RATE_HZ / 4),
                sr=RATE_HZ,
                trough_threshold=0.15,
            )
            cents = 1200 * np.log2(np.median(found_hz) / true_hz)
            assert abs(cents) < 20, f"program {program}, MIDI {pitch}: {cents:.0f} cents off"


@pytest.mark.slow
def test_an_excerpt_is_rendered_alike_twice_and_otherwise_with_another_seed():
    again = short.__wrapped__()
    np.testing.assert_array_equal(short().audio, again.audio)
    np.testing.assert_array_equal(short().f0_hz, again.f0_hz)
    other = short(seed=1)
    assert other.audio.shape != again.audio.shape or not np.array_equal(other.audio, again.audio)


def test_stems_do_not_clip_and_all_are_heard():
    recording = short()
    track.check(recording)
    assert recording.stems == quartets.STEMS and len(recording.audio) < 15 * RATE_HZ
    assert np.abs(recording.audio).max() < 1 and np.abs(recording.audio.sum(axis=1)).max() < 1
    rms_db = 10 * np.log10(np.mean(np.square(recording.audio), axis=(0, 2)))
    assert np.all(rms_db > -45)


def test_labels_say_what_sounds():
    import librosa

    recording = short()
    for stem in range(4):
        sound, labels_hz = recording.audio[:, stem, 0], recording.f0_hz[:, stem]
        found_hz = librosa.yin(
            sound, fmin=50, fmax=2000, sr=RATE_HZ, hop_length=HOP, trough_threshold=0.15
        )[: len(labels_hz)]
        voiced = labels_hz > 0
        steady = (
            voiced & (np.roll(labels_hz, 2) == labels_hz) & (np.roll(labels_hz, -2) == labels_hz)
        )
        cents = 1200 * np.abs(np.log2(found_hz[steady] / labels_hz[steady]))
        assert steady.sum() > 50 and np.mean(cents < 50) > 0.9, f"stem {stem}"
        rms = np.sqrt(np.mean(np.square(sound.reshape(-1, HOP)), axis=1))
        assert np.mean(rms[voiced] > 0.05 * np.median(rms[voiced])) > 0.97


def test_an_ensemble_plays_the_same_notes_on_an_instrument_per_part():
    full, ensemble = short(), short(view="ensemble")
    assert (
        ensemble.stems == ("flute", "trumpet", "guitar", "saxophone") and ensemble.has_stems.all()
    )
    for ours, theirs in zip(ensemble.notes, full.notes, strict=True):
        assert len(ours) == len(theirs)
    again = short(seed=1, view="ensemble")
    assert not np.array_equal(again.audio[:30_000], ensemble.audio[:30_000])
    assert len(quartets.tracks(view="ensemble", grid=GRID)) == 48


def test_the_unlabelled_view_is_the_mixture_alone():
    full, unlabelled = short(), short(view="unlabelled")
    np.testing.assert_allclose(unlabelled.audio[:, 0], full.audio.sum(axis=1), atol=1e-6)
    assert not unlabelled.audio[:, 1:].any()
    assert not unlabelled.has_stems.any() and not unlabelled.has_pitch.any()
    assert not unlabelled.f0_hz.any() and not unlabelled.notes
