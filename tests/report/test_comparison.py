"""Runs side by side: which belong together, what differs, scores over seeds, and curves."""

import json
import re
import statistics

import pytest

from majl_jax.evaluation.rows import write_rows
from majl_jax.report import __main__ as report
from majl_jax.report import comparison

CONFIG = {
    "recipe": "majl",
    "run": ["joint"],
    "data": {"directory": "d", "labelled": "chorales", "stems_only": "", "pitch_only": ""},
    "stages": {"joint": {"steps": 3}, "student": {"steps": 7}},
    "weights": {"pitch": 1.0},
}


def make_run(folder, seed, sdr_db, **fields):
    folder.mkdir(parents=True)
    config = {**CONFIG, "seed": seed, **fields}
    said = {"config": config, "seed": seed, "starts": [{"commit": "0123456789abcdef"}]}
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


def test_one_page_about_several_runs(runs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (runs[1] / "report.html").write_text("a page")
    assert report.main([*map(str, runs)]) == 0
    assert capsys.readouterr().out.strip() == "comparison.html"
    source = (tmp_path / "comparison.html").read_text()
    assert "<h1>joint, half</h1>" in source and "chorales (synthetic only)" in source
    tables = re.findall(r"<table>(.*?)</table>", source, re.S)
    of_runs, settings, scores = (
        [
            [re.sub("<span.*?sd.*?</span>|<.*?>", "", c) for c in line.split("</td>")[:-1]]
            for line in re.findall(r"<tr.*?>(.*?)</tr>", table.partition("</thead>")[2])
        ]
        for table in tables
    )
    expected = [["joint", str(run), str(n), "finished"] for n, run in enumerate(runs[:3])]
    assert [line[:4] for line in of_runs] == [*expected, ["half", str(runs[3]), "0", "finished"]]
    assert of_runs[0][4] == "0123456789" and 'href="joint.s1/report.html"' in source
    # Not the steps of a stage that does not run, nor the seed.
    assert settings == [["weights.pitch", "1.0", "0.5"]]
    assert scores == [
        ["joint: joint", "3", "6.67"],
        ["half: joint", "1", "4.00"],
        ["mixture, untouched", "4", "\N{MINUS SIGN}2.00"],
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
