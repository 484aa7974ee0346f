"""Models by hf:// addresses, with a hub that is a folder: fetched, published, and what lacks."""

import json
import math
import pathlib
import shutil
import sys
import types

import numpy as np
import pytest
from made_runs import make_run
from safetensors import safe_open

import majl_jax
from majl_jax.export import __main__ as export
from majl_jax.separate import __main__ as separate
from majl_jax.separate import hub


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    """A module that keeps repositories in a folder."""
    folder = tmp_path / "hub"

    class HfApi:
        def create_repo(self, name, *, exist_ok):
            (folder / name).mkdir(parents=True, exist_ok=exist_ok)

        def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, revision):
            assert revision is None
            place = folder / repo_id / path_in_repo
            if isinstance(path_or_fileobj, bytes):
                place.write_bytes(path_or_fileobj)
            else:
                shutil.copy(path_or_fileobj, place)

    def hf_hub_download(name, file, revision=None):
        path = folder / name / file
        if revision not in (None, "v1") or not path.is_file():
            raise FileNotFoundError(f"404: {name}/{file} at {revision}")
        return str(path)

    module = types.SimpleNamespace(HfApi=HfApi, hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return folder


def test_a_run_is_published_and_loaded_by_its_address(fake_hub, tmp_path, capsys):
    run = make_run(tmp_path / "run")
    address = "hf://someone/voice"
    assert export.main([str(run), f"--output={address}", "--licence=CC-BY-4.0"]) == 0
    assert capsys.readouterr().out.startswith(f"{address}: majl, stage student, step 7")
    assert {p.name for p in (fake_hub / "someone/voice").iterdir()} == {hub.FILE, "README.md"}
    card = (fake_hub / "someone/voice/README.md").read_text()
    for words in (
        "license: cc-by-4.0",
        "# majl: soprano",
        "chorales, chorales_stems, chorales_pitch (synthetic only)",
        'majl_jax.load("hf://someone/voice")',
        "| sdr_db | 8 |",
        "arXiv 2501.03689",
    ):
        assert words in card
    model, of_run = majl_jax.load(address), majl_jax.load(run)
    assert model.info.licence == "CC-BY-4.0" and model.info.stems == ("soprano",)
    for ours, theirs in zip(*(_leaves(one.variables) for one in (model, of_run)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    same = majl_jax.load("hf://someone/voice@v1:model.safetensors")
    assert same.info.about == model.info.about
    assert separate.main(["a.wav", "--checkpoint=hf://someone/none", "--output=o"]) == 1
    assert "error: 404: someone/none/model.safetensors" in capsys.readouterr().err


def test_scores_that_json_has_no_numbers_for(fake_hub, tmp_path):
    run = make_run(tmp_path / "run")
    scores = {"sdr_db": "inf", "threshold_tuned": "-inf", "rpa": None}
    result = {"format": 1, "metrics": scores, "step": 7, "steps": [7]}
    (run / "student/result.json").write_text(json.dumps(result))
    expected = {"sdr_db": math.inf, "threshold_tuned": -math.inf, "rpa": None}
    assert majl_jax.load(run).info.scores == expected
    assert export.main([str(run), "--output=hf://someone/voice"]) == 0
    assert "| sdr_db | inf |" in (fake_hub / "someone/voice/README.md").read_text()
    assert majl_jax.load("hf://someone/voice").info.scores == expected
    with safe_open(fake_hub / "someone/voice" / hub.FILE, framework="numpy") as file:
        assert json.loads(file.metadata()["majl_jax"])["scores"] == scores


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


@pytest.mark.parametrize("address", ["hf://voice", "hf://a/b/c", "hf://a/b:../../x y", "hf://"])
def test_what_is_no_address_is_said(fake_hub, address):
    with pytest.raises(ValueError, match="is no address of a model; expected hf://OWNER/NAME"):
        hub.fetch(address)
    assert not pathlib.Path(fake_hub).exists()


def test_without_the_package_it_is_named_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert separate.main(["a.wav", "--checkpoint=hf://a/b", "--output=o"]) == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: hf:// addresses need huggingface_hub, which is not installed")
    assert 'pip install huggingface_hub (or "majl_jax[hub]")' in said
