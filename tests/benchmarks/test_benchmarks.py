"""The harness of the benchmarks: parity before times, processes, tables; and the docs' commands."""

import argparse
import importlib
import json
import pathlib
import re
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from places import ROOT

from benchmarks import __main__ as command
from benchmarks import first_step, separate_song
from benchmarks.harness import comparison, forms, measuring, report
from benchmarks.harness.comparison import Case, Comparison, Subject

TEXTS = {
    "README": (ROOT / "benchmarks" / "README.md").read_text(),
    **{name: words for name, words in command.benchmarks().items()},
}
COMMANDS = sorted(
    {
        re.sub(r"\s+", " ", found.replace("\\\n", " ")).partition(" #")[0].strip()
        for text in TEXTS.values()
        for found in re.findall(r"python -m benchmarks ([a-z](?:[^\n`|\\]|\\\n)*)", text)
    }
)


@pytest.mark.parametrize("text", COMMANDS)
def test_commands_in_the_docs_are_understood(text):
    options = command.parse(shlex.split(text))
    assert options.benchmark == text.split()[0]


def test_every_benchmark_has_a_command_in_its_docs(capsys):
    names = set(command.benchmarks())
    assert {text.split()[0] for text in COMMANDS} == names
    assert command.main(["--list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == names


def test_no_library_is_imported_where_processes_are_only_started():
    names = [n for n in command.benchmarks() if "comparison.add_options" in _source(n)]
    assert len(names) == 7
    code = (
        "import sys; from benchmarks import __main__ as command\n"
        f"for name in {names}: command.parse([name])\n"
        "assert not {'torch', 'jax', 'tensorflow'} & set(sys.modules)\n"
        "ours = {name for name in sys.modules if name.startswith('majl_jax.')}\n"
        "assert ours == {'majl_jax.terminal'}, ours"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def _source(name):
    return (ROOT / "benchmarks" / f"{name}.py").read_text()


@pytest.mark.slow
def test_what_disagrees_is_not_timed(tmp_path):
    called = []

    def worker(options, case, folder):
        results = {"output": np.array([1.0, 2.0 if case.library == "right" else 2.1])}
        return Subject(results, {"step": lambda: called.append(options.child)})

    compared = Comparison(
        cases={
            "first": Case("right"),
            "same": Case("right"),
            "wrong": Case("wrong"),
            "wrong bfloat16": Case("wrong", "bfloat16"),
        },
        workers={"right": worker, "wrong": worker},
        tolerance={"output": 1e-3},
        reference="first",
    )
    found = {}
    for name in compared.cases:
        options = argparse.Namespace(child=name, folder=tmp_path, calls=2)
        assert comparison.run(compared, options) == 0
        found[name] = json.loads((tmp_path / "report.json").read_text())
    assert [found[name]["agrees"] for name in compared.cases] == [True, True, False, True]
    assert found["wrong"]["errors"]["output"] == pytest.approx(0.1 / 5**0.5)
    assert found["wrong"]["timings"] == {}
    # One call before, two timed, one for the memory.
    assert called == ["first"] * 4 + ["same"] * 4 + ["wrong bfloat16"] * 4
    medians = report.medians({name: [one] for name, one in found.items()}, "first")
    text = "\n".join(report.lines(medians, compared.tolerance))
    assert re.search(r"^wrong .*4\.5e-02  too much: not timed$", text, re.M)


@pytest.mark.parametrize("agrees", [True, False])
def test_the_exit_status_and_medians_over_the_turns(agrees, monkeypatch, capsys, tmp_path):
    started = []

    def child(options, folder, case, **changed):
        started.append((case, changed))
        ms = {"slow": 30.0, "fast": 10.0}[case] + 3.0 * started.count((case, changed)) ** 2
        timings = {"step": {"ms": ms, "cpu_ms": 2 * ms, "mib": 0.0}} if agrees else {}
        return {
            "agrees": agrees or case == "slow",
            "errors": {"output": 0.5},
            "timings": timings,
            "compile_s": 1.0,
            "planned_mib": None,
            "parameters": 1234,
        }

    monkeypatch.setattr(comparison, "child", child)
    compared = Comparison({"slow": Case("x"), "fast": Case("x")}, {}, {"output": 1e-3}, "slow")
    path = tmp_path / "lines.jsonl"
    options = argparse.Namespace(child=None, cases="1", turns=3, json=path, command=("x",))
    assert comparison.run(compared, options, batch=4) == (0 if agrees else 1)
    # In turns, and the first case also where it was not asked for.
    assert started == [("slow", {"batch": 4}), ("fast", {"batch": 4})] * 3
    line = json.loads(path.read_text())
    assert line["options"]["batch"] == 4 and line["command"] == ["python", "-m", "benchmarks", "x"]
    if agrees:
        fast = line["cases"]["fast"]
        # Of 3, 12 and 27 above what it takes, 12.
        assert fast["timings"]["step"]["ms"] == 22.0
        assert fast["ratios"]["step"] == {"ms": 22 / 42, "cpu_ms": 22 / 42, "mib": None}
        assert re.search(r"^fast +22\.0 +0\.52 +44\.0 +0\.52 +0 *$", capsys.readouterr().out, re.M)


@pytest.mark.slow
def test_a_comparison_from_the_command_to_its_line_of_json(tmp_path, capsys):
    path = tmp_path / "lines.jsonl"
    call = ["stft", "--signals=0", "--cases=0,2", "--turns=1", "--calls=1", f"--json={path}"]
    assert command.main(call) == 0
    printed = capsys.readouterr().out
    assert "---- 16 kHz, 2.56 s x 8, 1024 / 320" in printed
    cases = json.loads(path.read_text())["cases"]
    assert list(cases) == ["ours", "numpy"]
    assert cases["numpy"]["errors"]["both"] < 1e-5
    assert set(cases["ours"]["timings"]) == {"stft", "istft", "both", "gradient"}
    assert set(cases["numpy"]["ratios"]) == {"stft", "istft", "both"}
    # Each process was pinned to a core.
    assert [one["cores"] for one in cases.values()] == [1, 1]


def test_memory_is_that_of_the_call():
    found = measuring.measure(lambda: np.ones(2**23), 1)
    assert 60 < found["mib"] < 100 and found["ms"] > 0


def test_disagreement_is_relative_and_of_codes_a_share():
    assert measuring.disagreement([3.0, 4.5], [3.0, 4.0]) == pytest.approx(0.1)
    assert measuring.disagreement(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 0.25


def test_forms_are_held_against_the_exact_one():
    steps = {
        "sum": jax.jit(lambda x: jnp.sum(x)),
        "half": jax.jit(lambda x: jnp.sum(x) / 2),
    }
    ms, errors = forms.run(steps, (jnp.ones(8),), 1, exact="sum")
    assert errors == {"sum": [0.0], "half": [0.5]} and set(ms) == {"sum", "half"}
    shape = (jax.ShapeDtypeStruct((8,), jnp.float32),)
    planned = {name: forms.planned(step, shape) for name, step in steps.items()}
    head, *rows = forms.Forms({**planned, "sum": 2.0, "half": 1.0}, ms, errors, "sum").lines("sum")
    assert head.endswith("ratio  sum") and re.match(r"half +1 +0\.50 .*5e-01$", rows[1])


def test_what_fails_in_a_process_is_said(tmp_path):
    options = command.parse(["stft", "--cores=1", "--signals=0"])
    with pytest.raises(SystemExit, match="of no case: exit status 1; what PyTorch computes needs"):
        comparison.child(options, pathlib.Path(tmp_path), "of no case")


def test_what_is_wrong_is_said_in_one_line(capsys):
    assert command.main(["stft", "--cases=ours"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "'ours'" in line
    with pytest.raises(ValueError, match="ours"):
        command.main(["stft", "--cases=ours", "--debug"])


@pytest.mark.parametrize("name", ["clustering_loss", "mixit_loss"])
@pytest.mark.parametrize(("error", "status"), [(1e-7, 0), (float("nan"), 1), (1.0, 1)])
def test_results_that_are_no_numbers_disagree(name, error, status, monkeypatch):
    module = importlib.import_module(f"benchmarks.{name}")

    def run(steps, arguments, calls, *, exact):
        # NaN is no largest number: it has to be found behind others too.
        return dict.fromkeys(steps, 1.0), {form: [0.0, error] for form in steps}

    monkeypatch.setattr(forms, "planned", lambda step, shapes: 1.0)
    monkeypatch.setattr(forms, "run", run)
    monkeypatch.setattr(module, "data", lambda *sizes: ())
    assert command.main([name]) == status


@pytest.mark.parametrize("only", ["sums", "pitches"])
def test_where_no_module_is_there_it_is_said_what_to_install(only, tmp_path, capsys):
    assert command.main(["modules", f"--source={tmp_path}", f"--only={only}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path} is no copy of ") and "`apt-get install" in line


@pytest.mark.slow
def test_the_first_step_from_the_cache_makes_the_parameters_again(monkeypatch, tmp_path):
    made = []
    init = first_step._init
    monkeypatch.setattr(first_step, "_init", lambda stage: made.append(init(stage)))
    options = argparse.Namespace(stage=None, compile=False, cached=True)
    found = first_step.measure(options, "configs/transfer.py:smoke")
    assert len(made) == 2 and set(first_step.PARTS) <= set(found)
    heads = first_step.row("configs/transfer.py:smoke", found)
    assert " - " not in heads


def test_the_song_that_is_separated_is_not_in_the_memory(tmp_path):
    before = measuring.status_mib("VmRSS")
    separate_song._write_song(tmp_path / "song.wav", 60.0)
    # Its samples are 40 MiB, and 20 as float32.
    assert (tmp_path / "song.wav").stat().st_size > 20e6
    assert measuring.status_mib("VmHWM") - before < 30
