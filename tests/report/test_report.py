"""The page of a run: what it shows, that it is safe and self-contained, and that half a run is
enough.
"""

import base64
import html.parser
import io
import json
import math
import pathlib
import re
import urllib.parse

import numpy as np
import pytest
import soundfile

from majl_jax.evaluation import target
from majl_jax.evaluation.rows import write_rows
from majl_jax.evaluation.take import Take
from majl_jax.report import __main__ as report
from majl_jax.report import run_page
from majl_jax.report.svg import (
    BOTTOM,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    Series,
    kept_chart,
    line_chart,
    nice_ticks,
    pitch_chart,
)

HOP, RATE_HZ = 320, 16_000
EVIL = "</title><script>alert('x')</script>&\""
VOID = {"meta", "br", "img", "input", "hr", "link"}


class Page(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects text, links and images."""

    def __init__(self, path):
        super().__init__()
        self.open, self.words, self.links, self.tags = [], [], [], []
        self.source = pathlib.Path(path).read_text(encoding="utf-8")
        self.feed(self.source)
        assert not self.open, f"never closed: {self.open}"
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def row(track, system, **values):
    return {"track": track, "system": system, "seconds": 2.0, **values}


def write_stage(workdir, stage, *, steps=40, sdr_db=6.0, done=True, example="song"):
    """Logs, rows, result and one example, as a run leaves them."""
    with (workdir / "metrics.jsonl").open("a") as file:
        for step in range(1, steps + 1):
            line = {"stage": stage, "step": step, "kind": "train", "time_s": 1000.0 + step}
            file.write(json.dumps({**line, "loss": 1 / step, "grad_norm": 2.0}) + "\n")
        valid = {"sdr_db_mean": sdr_db, "sdr_db_std": 1.0, "mixture/sdr_db_mean": -1.25}
        file.write(json.dumps({**line, "kind": "valid", **valid}) + "\n")
    if not done:
        return
    rows = []
    for number, track in enumerate(("a" + EVIL, "b")):
        value = sdr_db + 2 * number - 1
        rows += [
            row(track, stage, sdr_db=value, rpa=0.8 + 0.1 * number, vfa=0.3 - sdr_db / 100),
            row(track, "mixture", sdr_db=-1.0 - number),
            row(track, "true stem", rpa=0.99),
        ]
    undefined = {"sdr_db": None, "skipped": {"sdr_db": "silent " + EVIL}}
    rows.append(row("c", stage, rpa=0.85, vfa=0.2, **undefined))
    write_rows(workdir / stage / "tracks.jsonl", rows)
    (workdir / stage / "result.json").write_text(json.dumps({"metrics": {}, "step": steps}))
    time = np.arange(RATE_HZ) / RATE_HZ
    voice = (0.3 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)[:, None]
    frames = RATE_HZ // HOP
    take = Take(
        example, 2 * voice, voice, True, np.full(frames, 220.0), np.ones(frames, bool), RATE_HZ, HOP
    )
    target.write_example(
        workdir / stage / "examples" / example,
        take,
        estimate=voice,
        pitch=(np.full(frames, 221.0), np.full(frames, 0.9)),
        pitch_threshold=0.5,
        seconds=5.0,
    )


@pytest.fixture
def run(tmp_path):
    """A finished run of two stages."""
    workdir = tmp_path / "my run"
    workdir.mkdir()
    start = {
        "time": "2026-01-02T03:04:05+00:00",
        "command": f"python -m majl_jax.main --note={EVIL}",
        "commit": "0123abc",
        "versions": {"jax": "0.10.2"},
        "hardware": {"platform": "cpu", "device": "cpu", "devices": 4, "cpus": 2},
    }
    config = {"recipe": "majl", "stages": {"first": {"steps": 40}}, "note": EVIL}
    manifest = {"config": config, "seed": 7, "starts": [start, start]}
    (workdir / "config.json").write_text(json.dumps(manifest))
    write_stage(workdir, "first", sdr_db=6.0)
    write_stage(workdir, "second", sdr_db=9.0, example="a song & more (1)")
    return workdir


def test_the_page_tells_what_the_run_was_and_what_came_out(run):
    page = Page(run_page.write_report(run))
    for words in ("my run", "finished", "0123abc", "jax 0.10.2", "4 x cpu", "resumed 1 time"):
        assert words in page.text
    assert "40 of 40 steps, complete" in page.text and "40 steps, complete" in page.text
    table = page.source[page.source.index("<table>") : page.source.index("</table>")]
    cells = {
        re.sub("<.*?>", "", r.split("</td>")[0]): [
            re.sub(r"<(?!/?strong).*?>", "", cell) for cell in r.split("</td>")[1:-1]
        ]
        for r in re.findall(r"<tr class=.*?>(.*?)</tr>", table)
    }
    assert cells["first"][:3] == ["3", "6.00 ± 1.00", "<strong>85.0</strong> ± 4.1"]
    assert cells["second"][:2] == ["3", "<strong>9.00</strong> ± 1.00"]
    assert cells["mixture, untouched"][1] == "\N{MINUS SIGN}1.50 ± 0.50"
    assert cells["true stem"][1:3] == ["", "99.0 ± 0.0"]
    # VFA is better when lower: 0.3 - sdr / 100 and 0.2, so the second stage is bold.
    assert "strong" in cells["second"][3] and "strong" not in cells["first"][3]
    assert "first: SDR of 1 track(s)" in page.text
    assert "dashed" in page.text and "mixture -1.25" in page.text


def test_the_page_loads_nothing_and_its_players_find_their_files(run):
    page = Page(run_page.write_report(run))
    outside = [link for link in page.links if not link.startswith("data:image/png;base64,")]
    assert len(outside) == 6 and page.tags.count("audio") == 6
    for link in outside:
        assert not urllib.parse.urlparse(link).scheme and not link.startswith("/")
        assert (run / urllib.parse.unquote(link)).is_file()
    assert "url(" not in page.source and "@import" not in page.source
    assert page.tags.count("image") == 6 and len(page.source) < 1_500_000
    assert "http" not in page.source


def test_nothing_that_a_user_named_becomes_html(run):
    page = Page(run_page.write_report(run))
    assert "script" not in page.tags and page.text.count("<script>") >= 3
    assert "<title>my run: report</title>" in page.source and EVIL not in page.source


def test_the_head_says_what_it_learned_from(run):
    assert "trained on" not in Page(run_page.write_report(run)).text
    manifest = json.loads((run / "config.json").read_text())
    data = {"labelled": "chorales", "stems_only": "copy/musdb18_hq", "pitch_only": "mine"}
    manifest["config"] |= {"run": ["teacher", "student"], "data": data}
    (run / "config.json").write_text(json.dumps(manifest))
    text = Page(run_page.write_report(run)).text
    assert "chorales (synthetic), copy/musdb18_hq (real), mine (unknown)" in text
    manifest["config"]["run"] = ["teacher"]
    (run / "config.json").write_text(json.dumps(manifest))
    text = Page(run_page.write_report(run)).text
    assert "chorales (synthetic only)" in text
    assert text.index("chorales (synthetic only)") < text.index("Results on held-out tracks")
    manifest["config"]["recipe"] = "../../evil"
    (run / "config.json").write_text(json.dumps(manifest))
    assert "trained on" not in Page(run_page.write_report(run)).text


def test_a_single_file_holds_the_sound(run, tmp_path, capsys):
    output = tmp_path / "elsewhere.html"
    assert report.main([str(run), "--single_file", f"--output={output}"]) == 0
    assert capsys.readouterr().out.strip() == str(output)
    page = Page(output)
    sounds = [link for link in page.links if link.startswith("data:audio/flac;base64,")]
    assert len(sounds) == page.tags.count("audio") == 6
    assert all(link.startswith("data:") for link in page.links)
    found = base64.b64decode(sounds[0].partition(",")[2])
    audio, rate_hz = soundfile.read(io.BytesIO(found))
    folder = run / "second/examples/a song & more (1)"
    same = [soundfile.read(path)[0] for path in sorted(folder.glob("*.wav"))]
    assert rate_hz == RATE_HZ and any(np.array_equal(audio, one) for one in same)
    # Without it, players find their files from where the page is.
    assert report.main([str(run), f"--output={output}"]) == 0
    for link in (one for one in Page(output).links if not one.startswith("data:image")):
        assert (tmp_path / urllib.parse.unquote(link)).is_file()


def test_stems_stand_against_scores_and_wide_tables_are_parted(run):
    of_stems = {f"usdr_db_{stem}": float(n) for n, stem in enumerate(("bass", "drums"))}
    more = {f"si_sdr_db_{stem}": 10.0 + n for n, stem in enumerate(("bass", "drums"))}
    names = ("sdr_db", "nsdr_db", "usdr_db", "sdr_v4_db", "sir_v4_db", "rpa", "rca", "oa", "vr")
    whole = dict.fromkeys(names, 0.5)
    rows = [row(t, "second", **whole, **of_stems, **more) for t in "ab"]
    rows += [row(t, "mixture", usdr_db_bass=-1.0) for t in "ab"]
    write_rows(run / "second/tracks.jsonl", rows)
    (run / "first/tracks.jsonl").unlink()
    source = Page(run_page.write_report(run)).source
    tables = re.findall(r"<table>(.*?)</table>", source, re.S)[:3]
    heads = [re.findall(r"<th(?: [^>]*)?>(.*?)</th>", table) for table in tables]
    assert heads[0][2:] == ["SDR dB", "NSDR dB", "uSDR dB", "SDRv4 dB", "SIRv4 dB"]
    assert heads[1][2:] == ["RPA %", "RCA %", "OA %", "VR %"]
    assert heads[2] == ["stem", "system", "SI-SDR dB", "uSDR dB"]
    cells = [
        [re.sub("<span.*?</span>|<.*?>", "", cell) for cell in line.split("</td>")[:-1]]
        for line in re.findall(r"<tr class=.*?>(.*?)</tr>", tables[2])
    ]
    minus = "\N{MINUS SIGN}"
    assert cells == [
        ["bass", "second", "10.00", "0.00"],
        ["", "mixture, untouched", "", f"{minus}1.00"],
        ["drums", "second", "11.00", "1.00"],
    ]


def test_no_letter_gets_too_small_on_a_narrow_screen_and_paper_is_white(run):
    """Charts are drawn no narrower than what their letters are made for."""
    source = Page(run_page.write_report(run)).source
    letters = float(re.search(r"svg text { font: ([\d.]+)px", source)[1])
    inside = 340 - 2 * 0.8 * 16 - 2  # the narrowest figure of a row, without its frame
    for width in re.findall(r'viewBox="0 0 (\d+) ', source):
        shown = 940 if int(width) > 400 else min(inside, 400 - 2 * 16 - 2 * 0.8 * 16 - 2)
        assert letters * shown / int(width) >= 11, width
    assert len(re.findall(r'class="scroll wide"', source)) == source.count('viewBox="0 0 1000')
    assert "@media print" in source and "--page: #fff;" in source


def test_half_a_run_has_a_page(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "third", "step": 3, "kind": "train", "loss": null}\n')
        file.write('{"stage": "third", "st')
    page = Page(run_page.write_report(run))
    assert "not finished" in page.text and "no finite value yet" in page.text
    assert "3 steps, not complete" in page.text


def test_stages_that_have_not_begun_make_a_run_unfinished(run):
    manifest = json.loads((run / "config.json").read_text())
    manifest["config"]["run"] = ["first", "second"]
    (run / "config.json").write_text(json.dumps(manifest))
    assert "not finished" not in Page(run_page.write_report(run)).text
    manifest["config"]["run"].append("third")
    (run / "config.json").write_text(json.dumps(manifest))
    assert "not finished" in Page(run_page.write_report(run)).text


PIECES = (
    "config.json",
    "metrics.jsonl",
    "first/result.json",
    "second/tracks.jsonl",
    "first/examples/song/truth.wav",
    "first/examples/song/pitch.csv",
)


@pytest.mark.parametrize("damage", ["remove", "empty", "cut", "noise"])
@pytest.mark.parametrize("name", PIECES)
def test_what_is_missing_is_left_out_and_what_is_damaged_is_named(run, name, damage, capsys):
    path = run / name
    data = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        cut = data[: len(data) // 2]
        path.write_bytes({"empty": b"", "cut": cut, "noise": b"\x00{[,\xc3\xa4\n"}[damage])
    # The end of a file of lines may be missing; pieces of an example are shown as far as they go.
    lines = path.suffix == ".jsonl" and damage != "noise"
    if damage == "remove" or lines or "examples" in name:
        page = Page(run_page.write_report(run))
        assert "Results on held-out tracks" in page.text and "Examples" in page.text
        return
    assert report.main([str(run)]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {path}") and ("line 1" in said or "is empty" in said)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"123", "holds 123, expected an object"),
        (b'{"stage": "first", "step": 3}', "has no 'kind'"),
        (b'{"stage": "fir\xff"}', "is not UTF-8 text (byte 14)"),
        (b'{"stage": ', "is not JSON"),
    ],
)
def test_a_damaged_line_is_named_in_one_line(run, line, fault, capsys):
    path = run / "metrics.jsonl"
    rows = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*rows[:4], line, *rows[4:], b""]))
    assert report.main([str(run)]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {path}, line 5 {fault}")


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("of something else")
    for folder in (tmp_path, tmp_path / "none"):
        assert report.main([str(folder)]) == 1
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"error: {folder}") and "give the --workdir of" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_has_just_begun_has_a_page(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    for words in ("not finished", "No stage has been tested", "no line yet", "No examples"):
        assert words in page.text


# ---- pseudo labels and dynamic weights -----------------------------------------------------------


def _column(page, name):
    """{row: text} of the column of a table that has this name."""
    table = next(
        t for t in re.findall(r"<table>.*?</table>", page.source, re.S) if f">{name}<" in t
    )
    column = re.findall(r"<th.*?>([^<]*)</th>", table).index(name)
    rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]
    return {row[0]: row[column] for row in rows if row}


@pytest.fixture
def labelled(run):
    """The run, with the files that lie beside its pseudo labels."""
    folder = run / "second" / "pseudo_labels"
    folder.mkdir()
    shares = {f"{k / 20:.2f}": 1.0 - k / 20 for k in range(21)}
    pitch = {
        **{"labels": "pitch", "unit": "frames", "target": "soprano", "teacher": "0a1b2c3d"},
        **{"teacher_step": 1300, "threshold": 0.7, "granularity": "frame", "wrong_pitch": 0.1},
        **{"seen": 70578, "kept": 47059, "masked": 23519, "mean_confidence": 0.81234},
        **{"minutes": 23.53, "voiced_kept": 40000, "unvoiced_kept": 7059, "wrong_share": 0.1061},
        "kept_share_at": shares,
    }
    old = {"labels": "stems", "unit": "records", "kept": 101, "seen": 127, "teacher": "x" + EVIL}
    (folder / "chorales_stems.json").write_text(json.dumps(pitch))
    (folder / "old.json").write_text(json.dumps({**old, "granularity": "segment"}))
    return run


def test_the_page_tells_what_the_teacher_labelled_and_what_was_kept(labelled):
    page = Page(run_page.write_report(labelled))
    assert page.text.index("Pseudo labels") < page.text.index("Training")
    assert _column(page, "chorales_stems") == {
        "labels": "pitch of soprano",
        "teacher": "0a1b2c3d, step 1,300",
        "threshold": "0.7",
        "kept as one": "frame",
        "audio": "23.53 min",
        "seen": "70,578 frames",
        "kept": "47,059 (66.7%)",
        "masked": "23,519",
        "kept, voiced": "40,000",
        "kept, unvoiced": "7,059",
        "mean confidence": "0.812",
        "wrong on purpose": "10.6%",
    }
    old = _column(page, "old")
    assert old["kept as one"] == "record"
    assert (old["kept"], old["kept, voiced"], old["wrong on purpose"]) == (
        "101 (79.5%)",
        "–",
        "none",
    )
    assert page.source.count("kept at each threshold") == 1, "old labels have no statistics to draw"
    assert "script" not in page.tags


def test_without_pseudo_labels_there_is_no_such_section(run):
    assert "Pseudo labels" not in Page(run_page.write_report(run)).text


@pytest.mark.parametrize(
    "damage",
    [
        {"kept_share_at": "none"},
        {"kept_share_at": [1, 2]},
        {"kept_share_at": {"a": 1}},
        {"kept_share_at": {"0.5": None}},
        {"seen": 0, "kept": 0},
        {"seen": "many", "threshold": None, "teacher_step": "last"},
    ],
)
def test_strange_statistics_still_have_a_page(labelled, damage):
    path = labelled / "second/pseudo_labels/chorales_stems.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **damage}))
    page = Page(run_page.write_report(labelled))
    assert _column(page, "chorales_stems")["labels"] == "pitch of soprano"


def test_a_silent_estimate_is_seen(run):
    rows = [row("a", "first", si_sdr_db=5.0), row("b", "first", si_sdr_db=-math.inf)]
    write_rows(run / "first/tracks.jsonl", rows)
    with (run / "metrics.jsonl").open("a") as file:
        line = {"stage": "first", "step": 40, "kind": "valid", "time_s": 2000.0}
        file.write(json.dumps({**line, "si_sdr_db": "-inf"}) + "\n")
    page = Page(run_page.write_report(run))
    minus = "\N{MINUS SIGN}\N{INFINITY}"
    assert f'{minus}<span class="sd"> ± \N{EN DASH}</span>' in page.source
    assert f"Infinite, and so the means ({minus}: a silent estimate): first: SI-SDR of 1 track" in (
        page.text
    )


def test_the_kept_share_lies_where_it_belongs_and_the_threshold_is_marked():
    svg = kept_chart([0.0, 0.5, 1.0], [1.0, 0.75, 0.0], used=(0.7, 0.4), title="kept")
    ((_, line),) = points(svg)
    (left, top), (middle, quarter), (right, bottom) = line
    assert (left, right) == (LEFT, 320 - RIGHT)
    assert (top, bottom) == (TOP, 180 - BOTTOM)
    assert middle == pytest.approx((left + right) / 2, abs=0.1)
    assert quarter == pytest.approx(top + 0.25 * (bottom - top), abs=0.1)
    ring = re.search(r'class="mark" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert float(ring[1]) == pytest.approx(left + 0.7 * (right - left), abs=0.1)
    assert float(ring[2]) == pytest.approx(top + 0.6 * (bottom - top), abs=0.1)
    rule = re.search(r'class="level" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', svg)
    assert rule[1] == rule[2] == ring[1]
    assert "mark" not in kept_chart([0.0, 1.0], [1.0, 0.0], used=None, title="kept")


def test_weights_and_shares_of_the_cases_are_one_chart(run):
    names = [f"{q}_case{n}" for q in ("weight_pitch", "weight_separation", "share") for n in (1, 2)]
    with (run / "metrics.jsonl").open("a") as file:
        for step in range(1, 31):
            line = {"stage": "second", "step": 40 + step, "kind": "train", "time_s": 2000.0 + step}
            values = dict.fromkeys(sorted(names), 0.5) | {"weight_separation_case2": 1 + step / 30}
            if step > 20:
                values["weight_pitch_case2"] = None  # no example of that case
            file.write(json.dumps({**line, "weighting": 1.0, **values}) + "\n")
    page = Page(run_page.write_report(run))
    figures = {
        re.sub("<.*?>", "", title): body
        for title, body in re.findall(r"<h4>(.*?)</h4>(.*?)</figure>", page.source, re.S)
    }
    assert not set(names) & set(figures) and "weighting" in figures
    body = figures["Dynamic weights"]
    styles = re.findall(r'<polyline class="([^"]*)"', body)
    assert len(styles) == 6 and len(set(styles)) == 6
    # One colour per case, one kind of line per quantity.
    assert [s.split()[1:] for s in styles] == [
        [f"c{case}", f"d{quantity}"] for quantity in range(3) for case in range(2)
    ]
    legend = re.findall(r'<span class="key (.*?)"></span>([\w ]+)', body)
    in_words = [name.replace("_", " ") for name in names]
    assert legend == list(zip(styles, in_words, strict=True))
    rising = re.findall(r'<polyline class="many c1 d1" points="([^"]*)"', body)[0].split()
    ended = re.findall(r'<polyline class="many c1 d0" points="([^"]*)"', body)[0].split()
    assert len(rising) == 30 and len(ended) == 20
    assert ">0.0<" in body, "the axis begins at zero"
    assert page.source.count("Dynamic weights</h4>") == 1, "the first stage has none"


def points(svg):
    """Pixel coordinates of every line of a chart."""
    lines = re.findall(r'<polyline class="(\w+)" points="([^"]*)"', svg)
    return [(c, [tuple(map(float, p.split(","))) for p in text.split()]) for c, text in lines]


def test_a_line_lies_where_its_values_are_and_stops_at_gaps():
    values = [0.0, 1.0, 2.0, None, math.nan, 3.0, 4.0]
    series = Series("loss", list(range(0, 70, 10)), values, "train")
    lines = points(line_chart([series], title="loss"))
    assert [c for c, _ in lines] == ["train", "train"]
    (first, second) = (line for _, line in lines)
    assert len(first) == 3 and len(second) == 2
    xs, ys = zip(*first, *second, strict=True)
    # Equal steps in value are equal steps in pixels, upwards.
    np.testing.assert_allclose(np.diff(ys[:3]), ys[1] - ys[0], atol=0.11)
    assert ys[1] < ys[0] and ys[4] == pytest.approx(ys[0] + 4 * (ys[1] - ys[0]), abs=0.3)
    assert xs[0] == LEFT and xs[-1] == pytest.approx(320 - RIGHT)
    assert xs[3] - xs[2] == pytest.approx(3 * (xs[1] - xs[0]), abs=0.2)


def test_values_over_several_decades_get_a_logarithmic_axis():
    series = Series("loss", [0, 1, 2, 3], [1000.0, 100.0, 10.0, 1.0], "train")
    ((_, line),) = points(line_chart([series], title="loss"))
    np.testing.assert_allclose(np.diff([y for _, y in line]), line[1][1] - line[0][1], atol=0.11)


def test_long_curves_are_thinned_to_means():
    steps = list(range(100_000))
    svg = line_chart([Series("loss", steps, [s % 2 for s in steps], "train")], title="loss")
    ((_, line),) = points(svg)
    assert len(line) <= MOST_POINTS and len({y for _, y in line}) == 1


def test_pitch_breaks_at_jumps_and_shows_single_frames():
    f0_hz = [220.0, 221.0, 440.0, 222.0, 0.0, math.nan, 220.0, 220.5]
    series = Series("f0", [0.02 * k for k in range(8)], f0_hz, "estimate")
    svg = pitch_chart([series], seconds=0.2)
    assert [len(line) for _, line in points(svg)] == [2, 2]
    assert svg.count("<circle") == 2


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.2, 7.9), (0.0101, 0.0143), (0, 450), (5, 5), (-1e6, 1e6)]
)
def test_ticks_are_round_inside_and_told_apart(low, high):
    ticks = nice_ticks(low, high)
    assert all(low <= v <= high for v, _ in ticks) and 1 <= len(ticks) <= 7
    assert len({label for _, label in ticks}) == len(ticks)
    assert high == low or len(ticks) >= 3
