"""The papers' tables: what they ask for, and one grid from the command to table and figure."""

import dataclasses
import json
import pathlib
import re
import shlex
import threading
import time
import types

import made_music
import numpy as np
import pytest
import smoke_runs
from places import ROOT

from experiments import __main__ as command
from experiments import grid, majl, rates, results
from experiments.experiment import Data, DataSet, Row, Run, Table
from experiments.transfer import figures
from majl_jax.recipes.ranges import check_ranges

EXPERIMENTS = command.experiments()
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("experiments/*/*.md")]
COMMANDS = sorted(
    {
        found.partition(" #")[0]
        for page in PAGES
        for found in re.findall(r"python -m experiments ([a-z-][^\n`|]*)", page.read_text())
    }
)


@pytest.fixture(params=EXPERIMENTS)
def experiment(request):
    return EXPERIMENTS[request.param]


def test_every_row_s_stage_is_one_that_its_run_trains(experiment):
    for name, table in experiment.tables.items():
        for row in table.rows:
            assert row.stage in row.run.stages, (name, row.label)
        assert len({row.label for row in table.rows}) == len(table.rows)


def test_runs_of_one_name_are_one_run_and_lenders_come_first(experiment):
    runs = {}
    for table in experiment.tables.values():
        before = set()
        for run in table.runs():
            assert runs.setdefault(run.name, run) == run
            assert dict(runs[run.name].fields) == dict(run.fields)
            if run.borrows is not None:
                lender, stage = run.borrows
                assert lender.name in before and stage in lender.stages
            before.add(run.name)
    assert set(runs) == {run.name for run in experiment.runs()}


def test_fields_of_the_runs_exist_in_the_config(experiment):
    for run in experiment.runs():
        config = config_of(experiment, run)
        # An unknown field is an error.
        config.update_from_flattened_dict(dict(run.fields))
        check_ranges(config)
        assert set(run.stages) <= set(config.stages)
        named = {word for text in run.fields.values() for word in re.findall(r"{(\w+)}", str(text))}
        assert named - {"other_music"} == {one.name for one in run.after}


def config_of(experiment, run):
    path, _, preset = (run.config or experiment.preset).partition(":")
    return smoke_runs.load_config(pathlib.Path(path).stem, preset)


def test_tables_in_the_checkout_are_those_of_its_results(experiment, tmp_path):
    folder = ROOT / "experiments" / experiment.name
    copy = tmp_path / "results.jsonl"
    copy.write_text((folder / "results.jsonl").read_text())
    call = [experiment.name, "--redraw", f"--results={copy}", f"--workdir={tmp_path / 'none'}"]
    assert command.main(call) == 0
    written, kept = map(_sections, (tmp_path / "tables.md", folder / "tables.md"))
    lines = [json.loads(line) for line in copy.read_text().splitlines()]
    compared = 0
    for name, table in experiment.tables.items():
        for kind, (words, _) in experiment.kinds.items():
            rows = {x["row"] for x in lines if (x["table"], x["data"]) == (name, kind)}
            # A table whose rows were named anew waits for its runs.
            if rows and rows <= {row.label for row in table.rows}:
                heading = f"{table.title} ({words})"
                assert written[heading] == kept[heading]
                compared += 1
    if not lines:  # not run yet, and says so
        assert written["Not run (few_labels)"] == kept["Not run (few_labels)"]
        rows = [row.label for table in experiment.tables.values() for row in table.rows]
        assert all(f": {row}\n" in kept["Not run (few_labels)"] for row in rows)
        return
    assert compared
    assert {p.name for p in (tmp_path / "figures").iterdir()} <= {
        p.name for p in (folder / "figures").iterdir()
    }


def _sections(path):
    """The text below each heading of a second level."""
    return dict(part.split("\n", 1) for part in path.read_text().split("\n## "))


def test_results_under_a_former_label_keep_their_numbers(tmp_path):
    lines = [
        {"table": "main", "data": "chorales", "row": row, "seed": 0, "steps": 2, "tracks": 1}
        for row in ("MAJL", "renamed since")
    ]
    metrics = {"commit": "0123456789", "metrics": {"sdr_db": 7.5, "rpa": 0.5}}
    text = "".join(json.dumps({**line, **metrics}) + "\n" for line in lines)
    (tmp_path / "results.jsonl").write_text(text)
    command.main(["majl", "--redraw", f"--results={tmp_path / 'results.jsonl'}"])
    written = (tmp_path / "tables.md").read_text()
    assert "| MAJL | 7.50 | 50.0 |" in written
    assert "| renamed since (no longer run) | 7.50 | 50.0 |" in written


def test_results_wait_for_another_process_that_writes_them(tmp_path, monkeypatch):
    path = tmp_path / "results.jsonl"
    first, second = ({"table": "a", "data": "b", "row": "c", "seed": seed} for seed in (0, 1))
    writer = threading.Thread(target=results.write, args=(path, [second]))
    with results.locked(path):
        writer.start()
        time.sleep(0.3)
        path.write_text(json.dumps(first) + "\n")
    writer.join(20)
    assert results.read(path) == [first, second]
    monkeypatch.setattr(results, "WAITING_S", 0)
    with (
        results.locked(path),
        pytest.raises(TimeoutError, match=r"results\.jsonl: another process has been writing"),
    ):
        results.write(path, [second])


def test_a_score_that_is_minus_infinity_with_one_seed_stays_it_in_the_table(tmp_path):
    line = {"table": "main", "data": "chorales", "row": "MAJL", "steps": 2, "tracks": 1}
    lines = [
        {**line, "seed": seed, "commit": "0123456789", "metrics": {"sdr_db": score}}
        for seed, score in enumerate((7.5, "-inf"))
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    command.main(["majl", "--redraw", f"--results={tmp_path / 'results.jsonl'}"])
    assert "| MAJL | -inf |" in (tmp_path / "tables.md").read_text()


@pytest.mark.slow
def test_what_needs_the_folders_of_runs_stays_unless_all_are_there(tmp_path, capsys):
    folder, runs = ROOT / "experiments" / "transfer", tmp_path / "runs" / "transfer"
    for name in ("results.jsonl", "tables.md"):
        (tmp_path / name).write_text((folder / name).read_text())
    call = ["transfer", "--redraw", f"--results={tmp_path / 'results.jsonl'}"]
    call += [f"--workdir={tmp_path / 'runs'}"]
    lines = results.read(tmp_path / "results.jsonl")
    two = [x for x in lines if (x["table"], x["row"]) in _TWO_ROWS]
    level = {"scratch": 1.0, "finetune": 3.0}
    for line in two:
        stage = runs / line["run"] / "seed0" / line["stage"]
        for part in (stage, stage.with_name("pretrain")):
            part.mkdir(parents=True)
            (part / "result.json").write_text(json.dumps({"metrics": line["metrics"]}))
        # Ten pieces, three excerpts of each.
        rows = [
            {"system": line["stage"], "track": f"piece {k % 10}@{k}.000"}
            | {"si_sdr_db": level[line["stage"]] + 0.01 * k}
            for k in range(30)
        ]
        (stage / "tracks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Of most rows there is no folder.
    assert command.main(call) == 0
    assert (tmp_path / "tables.md").read_text() == (folder / "tables.md").read_text()
    assert not (tmp_path / "figures" / "curves.png").exists()
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(
        "transfer: Paired tests and figures of runs on transfer stay as they were"
    )
    assert f"80 of the results have no folder below {runs}, as " in said
    # All of those that results tell of.
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in two))
    assert command.main(call) == 0
    tests = (tmp_path / "tables.md").read_text().partition("## Paired tests")[2]
    # Two decibels more in every piece.
    assert "| chorales | +2.00* | – | – |" in tests
    assert "takes the excerpts, which overlap and are not independent." in tests
    assert (tmp_path / "figures" / "curves.png").stat().st_size > 5_000
    # A folder of the same name with another result.
    kept = (tmp_path / "tables.md").read_text()
    (stage / "result.json").write_text(json.dumps({"metrics": {"si_sdr_db": 0.0}}))
    (stage / "tracks.jsonl").unlink()
    capsys.readouterr()
    assert command.main(call) == 0
    assert (tmp_path / "tables.md").read_text() == kept
    assert "1 of the results have no folder" in capsys.readouterr().out


_TWO_ROWS = ("ensemble", "scratch"), ("ensemble", "chorales, none, whole")


def test_excerpts_of_one_piece_are_no_tests_of_their_own():
    rng = np.random.default_rng(0)

    def starred(sources):
        """Whether differences by piece alone, none of them above 0 in the mean, get a star."""
        found = 0
        for _ in range(200):
            of_piece = rng.normal(size=(sources, 8))
            pieces = rng.integers(0, 8, (200, sources))
            pairs = {
                " + ".join(f"{piece}@{n}.000" for piece in drawn): sum(
                    of_piece[source][piece] for source, piece in enumerate(drawn)
                )
                for n, drawn in enumerate(pieces)
            }
            found += figures.p_value(pairs) < figures.SIGNIFICANT
        return found / 200

    assert starred(1) < 0.03 and starred(3) < 0.03
    pairs = {f"{piece}@{second}": 1.0 + piece for piece in range(8) for second in range(3)}
    assert figures.by_piece(pairs) == [1.0 + piece for piece in range(8)]
    assert figures.p_value(pairs) == pytest.approx(1 / 256)


def test_commits_keep_what_says_that_files_differed():
    clean, other = "0123456789" * 4, "a" * 40
    assert results.short(clean) == "0123456"
    assert results.short(f"{clean}-dirty, {other}") == "0123456-dirty, aaaaaaa"
    assert results.short(None) == "None"


def _run(folder, *, commits=("a" * 40,), contents=None):
    (folder / "teacher").mkdir(parents=True)
    config = {"stages": {"teacher": {"steps": 2}}, "data": {"directory": "none"}}
    starts = [{"commit": commit, "hardware": {}} for commit in commits]
    manifest = {"config": config, "starts": starts, "data": contents or {}}
    (folder / "config.json").write_text(json.dumps(manifest))
    (folder / "teacher" / "result.json").write_text(json.dumps({"metrics": {"sdr_db": 1.0}}))
    (folder / "teacher" / "tracks.jsonl").write_text('{"system": "teacher"}\n')


def test_a_line_says_changes_data_and_the_commits_of_all_starts(tmp_path):
    contents = {"chorales": {"train": 7}}
    commits = ("a" * 40, "b" * 40 + "-dirty", "a" * 40, None)
    how = grid.Grid("c", Data("chorales", (), {}), tmp_path, tmp_path, (0,))
    table = Table("", "", (Row("one", Run("one", ("teacher",)), "teacher"),))
    _run(tmp_path / "one" / "seed0", commits=commits, contents=contents)
    changes = ["--set=--config.train.steps=1"]
    (line,) = results.collect(how, "main", table, changes=changes)
    assert line["contents"] == contents and line["changes"] == changes
    assert line["commit"] == f"{'a' * 40}, {'b' * 40}-dirty"
    assert results.short(line["commit"]) == "aaaaaaa, bbbbbbb-dirty"


def test_a_run_that_fails_keeps_none_but_those_that_need_it_from_running(tmp_path, monkeypatch):
    lender = Run("lender", ("teacher",))
    borrower = Run("borrower", ("teacher", "student"), borrows=(lender, "teacher"))
    last = Run("last", ("teacher",), after=(Run("first", ("pretrain",)),))
    how = grid.Grid("c", Data("chorales", (), {}), tmp_path, tmp_path, (0,))
    trained = []

    def train(self, run, seed, core):
        if run.name == "lender":
            raise RuntimeError("lender: exit status 1")
        trained.append(run.name)
        return 0.0

    monkeypatch.setattr(grid.Grid, "train", train)
    with pytest.raises(RuntimeError, match=r"^lender: exit status 1$"):
        how.train_all([lender, borrower, *last.with_lenders()])
    assert trained == ["first", "last"]


def test_changed_runs_are_no_results_of_the_table_s_command(tmp_path):
    options = command.parse(["majl", "--table=main", "--config=a.py:b", "--set=--config.c=1"])
    changes = command._changes(options)
    assert changes == ["--config=a.py:b", "--set=--config.c=1"]
    assert command._changes(command.parse(["majl", "--table=main"])) == []
    line = {"table": "main", "data": "chorales", "row": "MAJL", "seed": 0, "steps": 2, "tracks": 1}
    before = {**line, "commit": "a" * 40, "metrics": {"sdr_db": 7.5, "rpa": 0.5}}
    changed = {**before, "changes": changes, "metrics": {"sdr_db": 1.25, "rpa": 0.5}}
    again = {**before, "changes": [], "metrics": {"sdr_db": 8.5, "rpa": 0.5}}
    path = tmp_path / "results.jsonl"
    results.write(path, [before])
    results.write(path, [changed])
    results.write(path, [again])
    assert results.read(path) == [changed, again]
    command.main(["majl", "--redraw", f"--results={path}"])
    ours, other = (
        _sections(tmp_path / "tables.md")[f"Main comparison (synthetic chorales{more}"]
        for more in (")", ", --config=a.py:b, --set=--config.c=1)")
    )
    assert "| MAJL | 8.50 |" in ours and "| MAJL | 1.25 |" in other
    assert "--table=main --config=a.py:b --set=--config.c=1`" in other and "--set" not in ours
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_rows_of_other_data_are_neither_averaged_nor_subtracted(tmp_path):
    line = {"table": "main", "data": "chorales", "steps": 2, "tracks": 16, "commit": "a" * 40}
    here, there = ({"chorales": {"test": checksum}} for checksum in (1, 2))
    rows = [
        ("MAJL", 0, {}, 8.0),
        ("MAJL without DWHS", 0, {"contents": here}, 7.0),
        # Another content, and another number of tracks.
        ("MAJL without DWHS", 1, {"contents": there}, 3.0),
        ("MAJL", 1, {"tracks": 12, "contents": here}, 1.0),
        ("pipeline: trained apart", 0, {"contents": {"chorales": {"test": None}}}, 5.0),
    ]
    lines = [
        {**line, "row": row, "seed": seed, "metrics": {"sdr_db": score}} | more
        for row, seed, more, score in rows
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    command.main(["majl", "--redraw", f"--results={tmp_path / 'results.jsonl'}"])
    written = (tmp_path / "tables.md").read_text()
    for said in (
        "| MAJL | 8.00 |",
        "| MAJL without DWHS | 7.00 |",
        "| MAJL without DWHS (other data) | 3.00 |",
        "| MAJL (other data 2) | 1.00 |",
        "| MAJL without DWHS | -1.00 (-1.00) | – |",
        "| pipeline: trained apart | -3.00 (-3.00) | – |",
        "Against “MAJL”, seed by seed; rows of other data are in no difference, nor in the figure:",
    ):
        assert said in written, said


def test_what_is_used_together_has_one_rate_and_one_hop():
    layout, other = (
        types.SimpleNamespace(sample_rate_hz=rate_hz, hop_samples=320)
        for rate_hz in (16_000, 8_000)
    )
    rates.check({"a": layout, "b": layout})
    said = "a has 16000 Hz, a hop of 320, b has 8000 Hz, a hop of 320: expected the same of both"
    with pytest.raises(ValueError, match=said):
        rates.check({"a": layout, "b": other})
    other.sample_rate_hz, other.hop_samples = 16_000, 160
    with pytest.raises(ValueError, match="a hop of 320, b has 16000 Hz, a hop of 160"):
        rates.check({"a": layout, "b": other})


@pytest.fixture
def two_rows(tmp_path, monkeypatch):
    """The call of a grid of two runs of seconds, the second with the first one's teacher."""
    lender = Run("lender", ("teacher",))
    fields = {"pseudo_labels.threshold": 0.5}
    borrower = Run("borrower", ("teacher", "student"), fields, (lender, "teacher"))
    rows = Row("seven", lender, "teacher", 0.7), Row("five", borrower, "student", 0.5)
    table = Table("Two", "no claim", rows, x_label="threshold")
    data = made_music.prepare(tmp_path / "data")
    prepared = Data("chorales", (), {"data.directory": str(data)})
    monkeypatch.setattr(
        majl,
        "EXPERIMENT",
        dataclasses.replace(majl.EXPERIMENT, tables={"two": table}, data=lambda options: prepared),
    )
    call = ["majl", "--table=two", "--seeds=3", "--jobs=1", "--config=configs/majl.py:smoke"]
    results = tmp_path / "out" / "results.jsonl"
    return [*call, f"--workdir={tmp_path / 'runs'}", f"--results={results}"]


# Trainings of seconds, each in a process of its own.
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_table_from_the_command_to_the_figure(two_rows, tmp_path, capsys):
    kept = {path: path.read_bytes() for path in (ROOT / "experiments" / "majl").glob("*.*")}
    out, runs = tmp_path / "out", tmp_path / "runs" / "chorales"
    assert command.main(two_rows) == 0
    found = [json.loads(x) for x in (out / "results.jsonl").read_text().splitlines()]
    assert [(x["row"], x["seed"], x["stage"]) for x in found] == [
        ("seven", 3, "teacher"),
        ("five", 3, "student"),
    ]
    assert found[1]["fields"] == {"pseudo_labels.threshold": 0.5} and found[1]["tracks"] == 1
    text = (out / "tables.md").read_text()
    assert "| five |" in text and "seeds [3]" in text
    # Another preset than the table's.
    assert "--table=two --config=configs/majl.py:smoke`" in text
    (figure,) = (out / "figures").glob("chorales_two_*.png")
    assert figure.stat().st_size > 5_000
    # With results elsewhere nothing in the checkout is written.
    assert kept == {path: path.read_bytes() for path in kept}
    console = (runs / "borrower/seed3/console.log").read_text()
    assert "teacher: complete already" in console
    # Nothing is trained anew, no line doubled.
    assert command.main(two_rows) == 0
    assert (runs / "borrower/seed3/console.log").read_text() == console
    assert len((out / "results.jsonl").read_text().splitlines()) == 2
    # A row that was killed before its result goes on in its folder, to the same scores.
    (runs / "borrower/seed3/student/result.json").unlink()
    capsys.readouterr()
    assert command.main([*two_rows, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "borrower, seed 3: goes on, without a result of student" in said
    assert "lender, seed 3: complete" in said
    assert command.main(two_rows) == 0
    again = [json.loads(x) for x in (out / "results.jsonl").read_text().splitlines()]
    assert again == found
    assert (runs / "borrower/seed3/console.log").read_text().count("complete already") == 2


def test_a_dry_run_says_what_is_missing_and_runs_nothing(two_rows, tmp_path, monkeypatch, capsys):
    sets = (DataSet(("chorales", "absent"), tmp_path / "data", ("--tracks=train=1",)),)
    prepared = Data("chorales", sets, {"data.directory": str(tmp_path / "data")})
    declared = dataclasses.replace(majl.EXPERIMENT, data=lambda options: prepared)
    monkeypatch.setattr(majl, "EXPERIMENT", declared)
    assert command.main([*two_rows, "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert f"data {tmp_path / 'data' / 'chorales'}: there" in said
    assert f"data {tmp_path / 'data' / 'absent'}: missing" in said
    assert f"majl_jax.prepare --dataset=chorales,absent --output={tmp_path / 'data'}" in said
    # A borrowed stage is not the run's own to train.
    assert "lender, seed 3: not begun, without a result of teacher\n" in said
    assert "borrower, seed 3: not begun, without a result of student\n" in said
    assert "--config.pseudo_labels.threshold=0.5" in said
    assert f"--workdir={tmp_path / 'runs' / 'chorales' / 'borrower' / 'seed3'}" in said
    assert not (tmp_path / "runs").exists() and not (tmp_path / "out").exists()


def test_the_listing_names_every_table(capsys):
    assert command.main(["--list"]) == 0
    said = capsys.readouterr().out
    for name, experiment in EXPERIMENTS.items():
        listed = re.search(rf"^{name}: (?:.*)\n((?:  .*\n)+)", said, re.M)[1]
        assert re.findall(r"--table=(\w+)", listed) == list(experiment.tables)


@pytest.mark.parametrize("text", COMMANDS)
def test_commands_in_the_docs_are_understood(text):
    command.parse(shlex.split(text))


def test_the_docs_have_a_command_for_every_paper():
    assert {text.split()[0] for text in COMMANDS} >= {*EXPERIMENTS, command.COMPARE}


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("majl --table=mian", "unknown table mian; there are main, threshold"),
        ("majl", "--table is missing; there are main, threshold"),
        ("", "which paper? There are few_labels, jukebox, majl"),
        ("majl --table=main --runs=mjal", "unknown run mjal; there are baselines, majl"),
        ("mixit --table=amount --fretsonfire=songs", "--table=amount is about the songs of band"),
        ("few_labels --table=main", "--mir1k is missing: the folder of MIR-1K"),
        ("compare --data=data --target=voice", "the following arguments are required: MODEL"),
    ],
)
def test_what_is_not_there_is_refused(call, words, capsys):
    with pytest.raises(SystemExit):
        command.parse(call.split())
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--table=main", "--seeds=zero"], "invalid literal for int() with base 10: 'zero'"),
        (["--redraw", "--results={}/results.jsonl"], "/results.jsonl, line 1 is not JSON"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, capsys, arguments, fault):
    (tmp_path / "results.jsonl").write_text("no line\n")
    assert command.main(["majl", *[one.format(tmp_path) for one in arguments]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and fault in line
    with pytest.raises(ValueError, match="zero"):
        command.main(["--debug", "majl", "--table=main", "--seeds=zero"])
    with pytest.raises(ValueError, match="zero"):
        command.main(["majl", "--table=main", "--seeds=zero", "--debug"])
