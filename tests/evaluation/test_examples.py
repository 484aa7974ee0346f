"""What scores leave for the report."""

import json
import math

import numpy as np
import pytest

from majl_jax.audio import files
from majl_jax.evaluation.examples import NO_FILES, ForReport, write_stems
from majl_jax.evaluation.rows import (
    aggregate,
    flatten,
    mean,
    means,
    read_rows,
    text_table,
    write_rows,
)

ROWS = [
    {"track": t, "system": "main", "seconds": 1.0, "sdr_db": v} for t, v in (("a", 1.0), ("b", 4.0))
]


def test_the_first_tracks_are_examples(tmp_path):
    report = ForReport(tmp_path, example_count=2)
    assert report.example_folder("a/b", 1) == tmp_path / "examples/a_b"
    assert report.example_folder("c", 2) is None
    assert NO_FILES.example_folder("a", 0) is None


def test_rows_are_written_in_place_of_others_or_beside_them(tmp_path):
    report, path = ForReport(tmp_path), tmp_path / "tracks.jsonl"
    report.keep_rows(ROWS)
    report.keep_rows([{**ROWS[1], "sdr_db": 5.0}, {**ROWS[1], "track": "c"}], beside=True)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["track"], row["sdr_db"]) for row in lines] == [("a", 1.0), ("b", 5.0), ("c", 4.0)]
    ForReport(tmp_path, anew=True).keep_rows([ROWS[1]], beside=True)
    assert read_rows(path) == [ROWS[1]]
    report.keep_rows(ROWS[:1])
    assert len(path.read_text().splitlines()) == 1
    NO_FILES.keep_rows(ROWS)
    with pytest.raises(ValueError, match="the split is empty"):
        NO_FILES.keep_rows([])


def test_means_have_the_names_of_the_scores():
    found = means(flatten(aggregate(ROWS), "main"))
    assert found == {"sdr_db": 2.5}
    assert math.isnan(means({"sdr_db_mean": math.nan, "sdr_db_std": 1.0})["sdr_db"])


def test_a_silent_estimate_is_in_the_mean_and_in_the_file(tmp_path):
    """-inf, as text, which JSON has no number for; what is undefined is left out and counted."""
    values = {"a": 8.0, "b": -math.inf, "c": 6.0, "d": None}
    rows = [{**ROWS[0], "track": track, "si_sdr_db": value} for track, value in values.items()]
    write_rows(tmp_path / "tracks.jsonl", rows)
    written = [json.loads(x)["si_sdr_db"] for x in (tmp_path / "tracks.jsonl").open()]
    assert written == [8.0, "-inf", 6.0, None]
    read = read_rows(tmp_path / "tracks.jsonl")
    assert read == rows
    numbers = aggregate(read)["main"]["si_sdr_db"]
    assert numbers["mean"] == numbers["weighted"] == -math.inf and numbers["median"] == 6.0
    assert math.isnan(numbers["std"])
    found = means(flatten(aggregate(read), "main"))
    assert found["si_sdr_db_infinite"] == 1 and found["si_sdr_db_skipped"] == 1
    assert mean([math.inf, 1.0]) == math.inf and mean([math.inf, -math.inf]) == -math.inf
    assert mean([1.0, 4.0], [3.0, 1.0]) == 1.75 and math.isnan(mean([]))
    assert text_table([{**ROWS[0], "sdr_db": None}, {**ROWS[1], "system": "other"}]).splitlines()[
        1:3
    ] == ["other    4.00", "main        -"]


@pytest.mark.filterwarnings("ignore:.*every sample is zero")
def test_stems_are_written_limited_and_without_numbers_that_are_none(tmp_path):
    truth = np.full((8, 2, 1), 0.25, np.float32)
    estimate = np.stack([np.full(8, 3.0), np.full(8, np.nan)], axis=1)[:, :, None].astype(
        np.float32
    )
    write_stems(tmp_path / "one", estimate, truth, stems=("a/b", "c"), sample_rate_hz=8000)
    heard = {p.stem: files.read(p)[0] for p in (tmp_path / "one").iterdir()}
    assert set(heard) == {"mixture", "a_b_estimate", "a_b_truth", "c_estimate", "c_truth"}
    np.testing.assert_allclose(heard["mixture"], 0.5)
    np.testing.assert_allclose(heard["a_b_estimate"], 1.0, atol=1e-4)
    np.testing.assert_array_equal(heard["c_estimate"], 0.0)
