"""Formats on disk have a number; a newer one is refused in one line, none is that of before."""

import json
import shutil

import jax
import made_records
import pytest
import tiny

from majl_jax import formats
from majl_jax.datasets import builder, records
from majl_jax.report.run_page import write_report
from majl_jax.separate import loading
from majl_jax.training import loop, manifest

NEWER = r"{} has the format 2, this version of majl_jax knows formats up to 1: use [^\n]*$"


def set_format(path, number):
    """Writes another number, or none, into a JSON file."""
    said = json.loads(path.read_text())
    assert said.pop("format") == 1
    path.write_text(json.dumps(said if number is None else {"format": number, **said}))


def train(workdir):
    options = loop.Options(evaluate_every_steps=5, checkpoint_every_steps=5)
    return loop.run(
        [tiny.line_stage(steps=5)], workdir, jax.random.key(0), options, devices=jax.devices()[:1]
    )


@pytest.fixture
def run(tmp_path):
    manifest.write_manifest(tmp_path, {"recipe": "majl"}, seed=0)
    return tmp_path


def test_a_newer_config_is_refused_by_all_who_read_it(run):
    set_format(run / "config.json", 2)
    for read in (
        lambda: manifest.write_manifest(run, {"recipe": "majl"}, seed=0),
        lambda: manifest.add_to_manifest(run, "labels", {}),
        lambda: loading.load_run(run),
        lambda: write_report(run),
    ):
        with pytest.raises(formats.FormatError, match=NEWER.format(r".*/config\.json")):
            read()


def test_a_run_of_before_goes_on_and_gets_the_number(run):
    set_format(run / "config.json", None)
    assert "format" not in json.loads((run / "config.json").read_text())
    manifest.write_manifest(run, {"recipe": "majl"}, seed=0)
    assert next(iter(json.loads((run / "config.json").read_text()).items())) == ("format", 1)


def test_results_have_a_number(tmp_path, capsys):
    first = train(tmp_path)
    path = tmp_path / "first" / "result.json"
    set_format(path, None)
    assert str(train(tmp_path)) == str(first) and "complete already" in capsys.readouterr().out
    path.write_text(json.dumps({"format": 2, **json.loads(path.read_text())}))
    for read in (lambda: train(tmp_path), lambda: write_report(tmp_path)):
        with pytest.raises(formats.FormatError, match=NEWER.format(r".*/first/result\.json")):
            read()


def test_prepared_data_have_a_number(tmp_path):
    folder = tmp_path / "set"
    track = records.cut(made_records.made_track("a", 80), made_records.LAYOUT)
    builder.write_dataset(folder, {"train": track}, layout=made_records.LAYOUT)
    set_format(folder / "index.json", None)
    before = records.open_prepared(folder)
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({"format": 1, **index}))
    assert records.open_prepared(folder).layout == before.layout
    set_format(folder / "index.json", 2)
    with pytest.raises(formats.FormatError, match=NEWER.format(r".*/set/index\.json")):
        records.open_prepared(folder)


@pytest.mark.parametrize("number", ["1", None, 1.5])
def test_what_is_no_number_is_refused(number):
    with pytest.raises(formats.FormatError, match="has the format"):
        formats.check({"format": number}, 1, "index.json")


# ---- damage --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    manifest.write_manifest(workdir, {"recipe": "majl"}, seed=0)
    train(workdir)
    return workdir


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("config.json", b'{"config": {}, "starts": [{}]}', "has no 'seed'"),
        (
            "config.json",
            b'{"config": {},\n\n "seed" 0}',
            "is not JSON (Expecting ':' delimiter, line 3",
        ),
        ("config.json", b"\xff\xfe{", "is not UTF-8 text (byte 0)"),
        ("first/result.json", b"", "is empty"),
        ("first/result.json", b"[1, 2]", "holds [1, 2], expected an object"),
        ("first/result.json", b'{"metrics": {}}', "has no 'steps'"),
        ("metrics.jsonl", b"\n123\n", ", line 2 holds 123, expected an object"),
        ("metrics.jsonl", b'{"stage": "\xe4"}\n', ", line 1 is not UTF-8 text (byte 11)"),
    ],
)
def test_what_is_damaged_is_named_before_a_run_goes_on(finished, tmp_path, name, data, fault):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    if name == "metrics.jsonl":
        # What a complete stage has no need of.
        (workdir / "first/result.json").unlink()
    (workdir / name).write_bytes(data)
    with pytest.raises(formats.FormatError) as found:
        manifest.write_manifest(workdir, {"recipe": "majl"}, seed=0)
        train(workdir)
    said = str(found.value)
    assert said.startswith(f"{workdir / name}") and fault in said and "\n" not in said
    assert (workdir / name).read_bytes() == data


def test_a_line_that_a_crash_cut_off_is_left_out_and_no_other(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert list(formats.read_lines(path)) == []
    for data, rows in (
        (b'{"a": 1}\n{"a": 2}\n', 2),
        (b'{"a": 1}\n{"a": 2}', 2),
        (b'{"a": 1}\n\n{"a": 2}\n{"a', 2),
        (b'{"a": 1}\n{"b": 2}', 1),
        (b'{"a": 1}\n\x00\x00', 1),
        (b"", 0),
    ):
        path.write_bytes(data)
        assert [row["a"] for row in formats.read_lines(path, needs=("a",))] == [1, 2][:rows]
    path.write_bytes(b'{"a": 1}\n{"a\n{"a": 2}\n')
    with pytest.raises(formats.FormatError, match=r"rows\.jsonl, line 2 is not JSON"):
        list(formats.read_lines(path))
