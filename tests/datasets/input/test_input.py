"""The input from disk (tf.data) and from memory: one set of demands for both."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from made_records import HOP, LAYOUT, made_track

from majl_jax.datasets import builder, records
from majl_jax.datasets.input import memory, reader, schedule, tf_data
from majl_jax.datasets.input.sources import mixture_sources

SEGMENT = 16
OPTIONS = {"batch_size": 6, "segment_samples": SEGMENT, "seed": 5}


@pytest.fixture(params=["pipeline", "memory"])
def open_batches(request):
    return {"pipeline": tf_data, "memory": memory}[request.param].open_batches


def take(batches, count):
    return [next(batches) for _ in range(count)]


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_shapes_types_and_global_numbers(open_batches, prepared):
    first, second = take(open_batches([(prepared, "train", 1.0)], **OPTIONS), 2)
    shapes = {key: (value.shape, value.dtype) for key, value in first.items()}
    assert shapes == {
        "stems": ((6, SEGMENT, 2, 1), np.int16),
        "has_stems": ((6, 2), bool),
        "f0_hz": ((6, SEGMENT // HOP, 2), np.float32),
        "has_pitch": ((6, SEGMENT // HOP, 2), bool),
        "index": ((6,), np.uint32),
    }
    np.testing.assert_array_equal(first["index"], range(6))
    np.testing.assert_array_equal(second["index"], range(6, 12))
    assert first["has_stems"].tolist() == [[True, False]] * 6


def test_crops_are_random_aligned_with_labels_and_inside_the_track(open_batches, prepared):
    starts = set()
    for batch in take(open_batches([(prepared, "train", 1.0)], **OPTIONS), 40):
        for stems, f0_hz, has_pitch in zip(
            batch["stems"], batch["f0_hz"], batch["has_pitch"], strict=True
        ):
            start = int(stems[0, 0, 0])
            assert start % HOP == 0
            starts.add(start)
            np.testing.assert_array_equal(stems[:, 0, 0], range(start, start + SEGMENT))
            np.testing.assert_array_equal(stems[:, 1, 0], stems[:, 0, 0] + 1000)
            np.testing.assert_array_equal(f0_hz[:, 0], start // HOP + np.arange(SEGMENT // HOP))
            assert has_pitch.all()
    assert len(starts) > 25


def test_a_track_shorter_than_the_segment_is_padded_or_left_out(open_batches, tmp_path):
    short = [*records.cut(made_track("a", 9), LAYOUT), *records.cut(made_track("b", 120), LAYOUT)]
    builder.write_dataset(tmp_path / "short", {"train": short}, layout=LAYOUT)
    source = [(tmp_path / "short", "train", 1.0)]
    padded = np.concatenate([b["stems"] for b in take(open_batches(source, **OPTIONS), 8)])
    ends = padded[:, -1, 0, 0]
    assert np.any(ends == 0)
    np.testing.assert_array_equal(padded[ends == 0][0, :, 0, 0], [*range(9), *[0] * 7])
    only_long = open_batches(source, min_valid_samples=SEGMENT, **OPTIONS)
    assert all((batch["stems"][:, -1, 0, 0] > 0).all() for batch in take(only_long, 8))
    with pytest.raises(ValueError, match="no record with 41 valid samples"):
        open_batches(source, min_valid_samples=41, **OPTIONS)


@pytest.mark.parametrize("count", [1, 3])
def test_distinct_offsets_repeat_themselves(open_batches, prepared, count):
    batches = open_batches([(prepared, "train", 1.0)], **OPTIONS, distinct_offsets=count)
    records_there = len(records.open_prepared(prepared).split("train"))
    starts = [int(s[0, 0, 0]) for b in take(batches, 8 * records_there) for s in b["stems"]]
    epochs = np.sort(np.reshape(starts, (-1, records_there)), axis=1)
    assert len(np.unique(epochs, axis=0)) == count  # every epoch has all records
    np.testing.assert_array_equal(epochs[count:], epochs[:-count])
    with pytest.raises(ValueError, match="distinct_offsets is -1"):
        open_batches([(prepared, "train", 1.0)], **OPTIONS, distinct_offsets=-1)


def test_labels_that_are_not_to_be_looked_at_are_gone(open_batches, prepared):
    sources = mixture_sources({prepared: 1.0}, "train")
    blind = mixture_sources({prepared: 1.0}, "train", unlabelled=[prepared])
    (seen,), (unseen,) = (take(open_batches(some, **OPTIONS), 1) for some in (sources, blind))
    assert seen["has_pitch"].any() and not unseen["has_pitch"].any()
    np.testing.assert_array_equal(seen["stems"], unseen["stems"])


def test_the_seed_decides(open_batches, prepared):
    source = [(prepared, "train", 1.0)]
    runs = [take(open_batches(source, **{**OPTIONS, "seed": seed}), 4) for seed in (5, 5, 6)]
    assert_same(runs[0], runs[1])
    assert any(
        not np.array_equal(a["stems"], b["stems"]) for a, b in zip(runs[0], runs[2], strict=True)
    )


def test_a_position_is_exact_whatever_was_prefetched(open_batches, prepared):
    source = [(prepared, "train", 2.0), (prepared, "valid", 1.0)]
    running = open_batches(source, **OPTIONS)
    take(running, 7)
    state = running.save()
    rest = take(running, 5)
    fresh = open_batches(source, **OPTIONS)
    fresh.restore(state)
    assert_same(take(fresh, 5), rest)
    used = open_batches(source, **OPTIONS)
    take(used, 2)
    used.restore(state)
    assert_same(take(used, 5), rest)
    far = json.loads(state)
    far["step"] = 10**9
    fresh.restore(json.dumps(far).encode())
    assert len(next(fresh)["stems"]) == 6


def test_a_position_of_other_data_is_refused(open_batches, prepared):
    state = open_batches([(prepared, "train", 1.0)], **OPTIONS).save()
    other = open_batches([(prepared, "train", 1.0)], **{**OPTIONS, "seed": 6})
    with pytest.raises(ValueError, match="other data: seed was 5, is 6 now"):
        other.restore(state)


@pytest.mark.parametrize("count", [2, 3])
def test_processes_together_read_the_batch_of_one(open_batches, prepared, count):
    source = [(prepared, "train", 1.0), (prepared, "valid", 1.0)]
    alone = take(open_batches(source, **OPTIONS), 3)
    parts = [
        take(open_batches(source, process_index=i, process_count=count, **OPTIONS), 3)
        for i in range(count)
    ]
    together = [
        {key: np.concatenate([part[step][key] for part in parts]) for key in alone[step]}
        for step in range(3)
    ]
    assert_same(alone, together)
    with pytest.raises(ValueError, match="multiple of process_count 4"):
        open_batches(source, process_count=4, **OPTIONS)


def test_sources_come_by_their_weights(open_batches, prepared, tmp_path):
    quiet = made_track("c", 120)
    quiet["has_stems"][:] = False
    builder.write_dataset(tmp_path / "quiet", {"train": records.cut(quiet, LAYOUT)}, layout=LAYOUT)
    source = [(prepared, "train", 3.0), (tmp_path / "quiet", "train", 1.0)]
    labelled = [b["has_stems"][:, 0] for b in take(open_batches(source, **OPTIONS), 40)]
    assert np.mean(np.concatenate(labelled)) == pytest.approx(0.75, abs=0.01)
    with pytest.raises(ValueError, match="weights must be"):
        next(open_batches([(prepared, "train", 0.0)], **OPTIONS))


def test_sources_that_do_not_fit_are_named(open_batches, prepared, tmp_path):
    other = records.Layout(("a", "b"), 1, 200, HOP, 40)
    builder.write_dataset(
        tmp_path / "other", {"train": records.cut(made_track("x", 40), other)}, layout=other
    )
    with pytest.raises(ValueError, match=r"stems is \('a', 'b'\) there, \('voice', 'rest'\) here"):
        open_batches([(prepared, "train", 1.0), (tmp_path / "other", "train", 1.0)], **OPTIONS)


def test_each_epoch_is_a_permutation(open_batches, tmp_path):
    tracks = [made_track(str(number), 40) for number in range(12)]
    for number, one in enumerate(tracks):
        one["stems"][:] = number
    pieces = [piece for one in tracks for piece in records.cut(one, LAYOUT)]
    builder.write_dataset(tmp_path / "twelve", {"train": pieces}, layout=LAYOUT)
    batches = open_batches([(tmp_path / "twelve", "train", 1.0)], **OPTIONS)
    seen = np.concatenate([batch["stems"][:, 0, 0, 0] for batch in take(batches, 8)]).reshape(4, 12)
    assert all(sorted(epoch) == list(range(12)) for epoch in seen.tolist())
    assert len({tuple(epoch) for epoch in seen.tolist()}) == 4


def test_groups_without_a_record_and_segments_of_broken_hops_are_refused(cut_records):
    crops = schedule.Crops(SEGMENT, HOP, seed=0)
    with pytest.raises(ValueError, match=r"groups of sizes \[\d+, 0\]: each needs at least one"):
        memory.Memory([memory.Group(cut_records), memory.Group([])], crops, batch_size=2)
    for samples in (0, SEGMENT + 1):
        with pytest.raises(ValueError, match=f"segment_samples {samples} is no multiple of hop 4"):
            schedule.Crops(samples, HOP, seed=0)


def test_a_share_too_small_to_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"source 1 has 0.0003\d+ of the examples"):
        schedule.pattern([3000.0, 1.0])


def test_a_segment_longer_than_records_is_refused(open_batches, prepared):
    longer = LAYOUT.record_samples + HOP
    options = {"batch_size": 1, "segment_samples": longer, "seed": 0}
    with pytest.raises(ValueError, match=rf"segment_samples {longer} .*record \("):
        open_batches([(prepared, "train", 1.0)], **options)


def test_the_pattern_spreads_sources_evenly():
    order = schedule.pattern([0.5, 0.3, 0.2])
    before = schedule.taken_before(order, 3)
    np.testing.assert_array_equal(before[-1], [500, 300, 200])
    expected = np.arange(len(before))[:, None] * np.asarray([0.5, 0.3, 0.2])
    assert np.abs(before - expected).max() <= 1.0


def test_absent_data_names_the_command(open_batches, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"majl_jax\.prepare --dataset=chorales"):
        open_batches([(tmp_path / "chorales", "train", 1.0)], **OPTIONS)


def test_tf_data_says_what_it_cannot_read(prepared, tmp_path, cut_records):
    with pytest.raises(ValueError, match="at most one record"):
        tf_data.open_batches([(prepared, "train", 1.0)], **{**OPTIONS, "segment_samples": 80})
    folder = tmp_path / "arrays"
    builder.write_dataset(folder, {"train": cut_records}, layout=LAYOUT, file_format="array_record")
    with pytest.raises(ValueError, match="use memory"):
        tf_data.open_batches([(folder, "train", 1.0)], **OPTIONS)
    assert len(next(memory.open_batches([(folder, "train", 1.0)], **OPTIONS))["stems"]) == 6


def test_without_tensorflow_its_reader_is_refused_with_the_way_around(monkeypatch):
    find = importlib.util.find_spec
    hidden = lambda name, *more: None if name == "tensorflow" else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    with pytest.raises(ModuleNotFoundError) as found:
        reader.named("tf.data", fields="config.data.")
    assert "pip install tensorflow-cpu" in str(found.value)
    assert "--config.data.reader=memory" in str(found.value)
    assert reader.named("memory") is memory.open_batches


def test_memory_and_readers_need_no_tensorflow(prepared):
    script = """
import sys
from majl_jax.datasets import readers, records
from majl_jax.datasets.grid import Grid
from majl_jax.datasets.input import memory
sources = [(sys.argv[1], "train", 1.0)]
batches = memory.open_batches(sources, batch_size=2, segment_samples=16, seed=0)
assert next(batches)["stems"].shape == (2, 16, 2, 1)
list(records.read_tracks(sys.argv[1], "train"))
readers.READERS["chorales"].tracks(grid=Grid(16000, 320))
for name in ("tensorflow", "librosa", "music21", "jax"):
    assert name not in sys.modules, name
"""
    subprocess.run([sys.executable, "-c", script, str(prepared)], check=True)
