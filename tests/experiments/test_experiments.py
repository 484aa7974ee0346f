"""The experiment scripts: what their tables ask for, and one run from the command to table and figure."""

import importlib
import json
import sys

import made_music
import pytest
from places import ROOT

PAPERS = sorted(path.parent.name for path in (ROOT / "experiments").glob("*/run.py"))


def _scripts(paper, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    monkeypatch.syspath_prepend(ROOT / "experiments" / paper)
    names = ("grid", "summary", "tables", "run")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return {name: importlib.import_module(name) for name in names}


@pytest.fixture(params=PAPERS)
def scripts(request, monkeypatch):
    return {"paper": request.param, **_scripts(request.param, monkeypatch)}


@pytest.fixture
def majl(monkeypatch):
    return _scripts("majl", monkeypatch)


def test_every_row_s_stage_is_one_that_its_run_trains(scripts):
    for name, table in scripts["tables"].TABLES.items():
        for row in table.rows:
            assert row.stage in row.run.stages, (name, row.label)
        assert len({row.label for row in table.rows}) == len(table.rows)


def test_runs_of_one_name_are_one_run_and_lenders_come_first(scripts):
    runs = {}
    for table in scripts["tables"].TABLES.values():
        before = set()
        for run in table.runs():
            assert runs.setdefault(run.name, run) == run
            assert dict(runs[run.name].fields) == dict(run.fields)
            if run.borrows is not None:
                lender, stage = run.borrows
                assert lender.name in before and stage in lender.stages
            before.add(run.name)


def test_fields_of_the_runs_exist_in_the_config(scripts):
    path = ROOT / "configs" / f"{scripts['paper']}.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    configs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(configs)
    for table in scripts["tables"].TABLES.values():
        for run in table.runs():
            config = configs.get_config("experiment")
            config.update_from_flattened_dict(dict(run.fields))  # an unknown field is an error
            assert set(run.stages) <= set(config.stages)


def test_a_table_from_the_command_to_the_figure(majl, tmp_path, monkeypatch):
    tables, run = majl["tables"], majl["run"]
    lender = tables.Run("lender", ("teacher", "student"))
    borrower = tables.Run(
        "borrower", lender.stages, {"pseudo_labels.threshold": 0.5}, (lender, "teacher")
    )
    rows = (
        tables.Row("seven", lender, "student", 0.7),
        tables.Row("five", borrower, "student", 0.5),
    )
    table = tables.Table("Two", "no claim", rows, x_label="threshold")
    monkeypatch.setitem(tables.TABLES, "two", table)
    data = made_music.prepare(tmp_path / "data")
    monkeypatch.setattr(run, "prepare", lambda options: {"data.directory": str(data)})
    monkeypatch.setattr(run, "HERE", tmp_path / "out")
    call = ["--table=two", "--seeds=3", "--jobs=1", "--config=configs/majl.py:smoke"]
    call += [f"--workdir={tmp_path / 'runs'}", f"--results={tmp_path / 'out' / 'results.jsonl'}"]
    (tmp_path / "out").mkdir()
    assert run.main(call) == 0
    found = [json.loads(x) for x in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    assert [(x["row"], x["seed"], x["stage"]) for x in found] == [
        ("seven", 3, "student"),
        ("five", 3, "student"),
    ]
    assert found[1]["fields"] == {"pseudo_labels.threshold": 0.5} and found[1]["tracks"] == 1
    text = (tmp_path / "out/tables.md").read_text()
    assert "| five |" in text and "seeds [3]" in text
    assert (tmp_path / "out/figures/chorales_two.png").stat().st_size > 5_000
    console = (tmp_path / "runs/chorales/borrower/seed3/console.log").read_text()
    assert "teacher: complete already" in console
    assert run.main(call) == 0  # nothing is trained anew, no line doubled
    assert len((tmp_path / "out/results.jsonl").read_text().splitlines()) == 2


def test_a_misspelt_table_is_refused(majl, capsys):
    with pytest.raises(SystemExit):
        majl["run"].parse(["--table=mian"])
    assert "unknown table mian; there are main, threshold" in capsys.readouterr().err
