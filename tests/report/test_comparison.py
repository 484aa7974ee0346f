"""Runs side by side: which belong together, what differs, scores over seeds, and curves."""

import json
import re
import statistics

import pytest

from majl_jax.evaluation.rows import read_rows, write_rows
from majl_jax.report import __main__ as report
from majl_jax.report import comparison

CONFIG = {
    "recipe": "majl",
    "run": ["joint"],
    "data": {"directory": "d", "labelled": "chorales", "stems_only": "", "pitch_only": ""},
    "stages": {"joint": {"steps": 3}, "student": {"steps": 7}},
    "weights": {"pitch": 1.0},
}
COMMIT = "0123456789abcdef"
MINUS = "\N{MINUS SIGN}"


def make_run(folder, seed, sdr_db, content=1, commit=COMMIT, **fields):
    folder.mkdir(parents=True)
    config = {**CONFIG, "seed": seed, **fields}
    said = {"config": config, "seed": seed, "starts": [{"commit": commit}]}
    said["data"] = {"chorales": {"test": content}}
    (folder / "config.json").write_text(json.dumps(said))
    (stage,) = config["run"]
    with (folder / "metrics.jsonl").open("w") as file:
        for step in (1, 2, 3):
            line = {"stage": stage, "step": step, "kind": "train", "time_s": 1.0, "loss": 1 / step}
            file.write(json.dumps(line | {f"only_{stage}": 1.0}) + "\n")
        valid = {"stage": stage, "step": 3, "kind": "valid", "time_s": 1.0, "rpa_mean": 0.5}
        file.write(json.dumps(valid) + "\n")
    rows = [
        {"track": track, "system": system, "seconds": 1.0, "sdr_db": value}
        for track, more in (("a", -1.0), ("b", 1.0))
        for system, value in ((stage, sdr_db + more), ("mixture", -2.0))
    ]
    write_rows(folder / stage / "tracks.jsonl", rows)
    (folder / stage / "result.json").write_text(json.dumps({"metrics": {}, "step": 3}))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Three seeds of one system and one of another, whose unused stage differs as well."""
    scores = (5.0, 6.0, 9.0)
    found = [make_run(tmp_path / f"joint.s{n}", n, score) for n, score in enumerate(scores)]
    other = {"joint": {"steps": 3}, "student": {"steps": 9}}
    return [*found, make_run(tmp_path / "half", 0, 4.0, weights={"pitch": 0.5}, stages=other)]


def cells(source):
    """Of each table the texts of its rows, without deviations."""
    return [
        [
            [re.sub("<span.*?sd.*?</span>|<.*?>", "", c) for c in line.split("</td>")[:-1]]
            for line in re.findall(r"<tr.*?>(.*?)</tr>", table.partition("</thead>")[2])
        ]
        for table in re.findall(r"<table>(.*?)</table>", source, re.S)
    ]


def compared(runs, tmp_path):
    return comparison.write_comparison(runs, tmp_path / "page.html").read_text()


def test_one_page_about_several_runs(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (runs[1] / "report.html").write_text("a page")
    assert report.main([*map(str, runs)]) == 0
    assert capsys.readouterr().out.strip() == "comparison.html"
    source = (tmp_path / "comparison.html").read_text()
    assert "<h1>joint, half</h1>" in source and "chorales (synthetic only)" in source
    of_runs, settings, scores = cells(source)
    expected = [["joint", str(run), str(n), "finished"] for n, run in enumerate(runs[:3])]
    assert [line[:4] for line in of_runs] == [*expected, ["half", str(runs[3]), "0", "finished"]]
    assert "same commit" not in source and "Undefined" not in source
    assert of_runs[0][4] == "0123456" and 'href="joint.s1/report.html"' in source
    # Not the steps of a stage that does not run, nor the seed.
    assert settings == [["weights.pitch", "1.0", "0.5"]]
    assert scores == [
        ["joint: joint", "3", "6.67"],
        ["half: joint", "1", "4.00"],
        ["mixture, untouched", "4", f"{MINUS}2.00"],
    ]
    spread = statistics.stdev([5.0, 6.0, 9.0])
    assert f'<strong>6.67</strong><span class="sd"> ± {spread:.2f}</span>' in source
    assert source.count(' class="sd"') == 2, "a single run has no deviation"
    titles = re.findall(r"<h4>(.*?)</h4>", source)
    assert titles == ["RPA % (validation)", "loss", "only joint"]
    chart = source[source.index("<h4>loss") :]
    lines = re.findall(r'<polyline class="many (c\d d\d)"', chart[: chart.index("</figure>")])
    assert lines == ["c0 d0"] * 3 + ["c1 d0"]


def test_what_only_one_system_has_is_no_common_curve_nor_a_setting(runs, tmp_path):
    fields = {"run": ["student"], "stages": {"student": {"steps": 7}}}
    other = make_run(tmp_path / "grid/student/seed0", 0, 1.0, **fields)
    comparison.write_comparison([*runs[:2], other], tmp_path / "page.html")
    source = (tmp_path / "page.html").read_text()
    assert re.findall(r"<h4>(.*?)</h4>", source) == ["RPA % (validation)", "loss"]
    assert re.findall(r"<code>(.*?)</code>", source) == ["run"]
    assert "<h3>joint and student</h3>" in source and "<h1>joint, student</h1>" in source


def test_what_is_no_run_is_refused(runs, tmp_path, capsys):
    assert report.main([str(runs[0]), str(tmp_path), f"--output={tmp_path / 'p.html'}"]) == 1
    assert "holds no run" in capsys.readouterr().err and not (tmp_path / "p.html").exists()
    with pytest.raises(SystemExit):
        report.main([*map(str, runs), "--single_file"])
    assert "holds no sound" in capsys.readouterr().err


def test_runs_on_other_data_are_no_other_seeds(runs, tmp_path):
    other = make_run(tmp_path / "joint.s3", 3, 30.0, content=2)
    path = other / "joint/tracks.jsonl"
    write_rows(path, [{**row, "sdr_db": row["sdr_db"] - 1} for row in read_rows(path)])
    _, settings, scores = cells(compared([*runs[:3], other], tmp_path))
    assert settings == [["content of chorales", "test 1", "test 2"]]
    assert scores == [
        ["joint: joint", "3", "6.67"],
        ["joint.s3: joint", "1", "29.00"],
        ["mixture, untouched (joint)", "3", f"{MINUS}2.00"],
        ["mixture, untouched (joint.s3)", "1", f"{MINUS}3.00"],
    ]


@pytest.mark.parametrize(("content", "groups"), [(1, 1), (None, 2)])
def test_where_data_lies_counts_where_nothing_tells_what_it_is(content, groups, tmp_path):
    made = [
        make_run(tmp_path / f"r{n}", n, 1.0, content, data={"directory": place})
        for n, place in enumerate("ab")
    ]
    _, *settings, scores = cells(compared(made, tmp_path))
    assert settings == [[["data.directory", "a", "b"]]] * (groups - 1)
    assert len(scores) == 2 * groups


def test_a_seed_that_occurs_twice_is_counted_once(runs, tmp_path):
    again = make_run(tmp_path / "again", 2, 30.0)
    _, settings, scores = cells(compared([*runs[:3], again], tmp_path))
    assert settings == [["run of the same seed", "\N{EN DASH}", "2"]]
    assert [line[1:] for line in scores[:2]] == [["3", "6.67"], ["1", "30.00"]]


def test_other_commits_of_the_same_settings_are_told(runs, tmp_path):
    other = make_run(tmp_path / "joint.s3", 3, 8.0, commit=f"{COMMIT}-dirty")
    source = compared([*runs[:3], other], tmp_path)
    of_runs, scores = cells(source)
    assert [line[4] for line in of_runs] == ["0123456"] * 3 + ["0123456-dirty"]
    assert scores[0] == ["joint: joint", "4", "7.00"]
    assert "are of the same commit: joint: 0123456, 0123456-dirty." in source


def test_undefined_tracks_are_told_and_weighted_means_are_weighted(runs, tmp_path):
    path = runs[0] / "joint/tracks.jsonl"
    rows = [row for row in read_rows(path) if row["system"] == "joint"]
    write_rows(path, [rows[0], {**rows[1], "sdr_db": None}])
    path = runs[1] / "joint/tracks.jsonl"
    rows = [row for row in read_rows(path) if row["system"] == "joint"]
    write_rows(path, [{**rows[0], "seconds": 3.0}, {**rows[1], "sdr_db": float("inf")}])
    source = compared(runs[:1], tmp_path)
    assert "Undefined, so left out: joint.s0: joint: SDR of 1 track(s) of all runs;" in source
    assert "Infinite" not in source
    source = compared(runs[:2], tmp_path)
    assert "Undefined, so left out: joint: joint: SDR of 1 track(s) of all runs;" in source
    assert "a silent estimate): joint: joint: SDR of 1 track(s) of all runs." in source
    write_rows(path, [{**rows[0], "seconds": 3.0}, rows[1]])  # 5 for 3 s, 7 for 1 s: 5.5, not 6
    source = compared(runs[1:3], tmp_path)
    assert "median 7.50, length-weighted mean 7.25, n = 2" in source
