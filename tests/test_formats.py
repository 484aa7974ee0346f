"""Formats on disk have a number; a newer one is refused in one line, none is that of before."""

import json

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
