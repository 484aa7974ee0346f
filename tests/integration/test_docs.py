"""What READMEs and docs/ say: commands, options, presets, fields, paths and links are there, and
the toy recipe trains.
"""

import functools
import importlib.util
import posixpath
import re
import subprocess
import sys
import types

import jax
import made_music
import numpy as np
import pytest
import soundfile
from made_runs import make_run
from places import ROOT

from majl_jax import main
from majl_jax.export import __main__ as export
from majl_jax.training import loop

TOY = "docs/adding-a-paper.md"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "data/*.md", "benchmarks/*.md", "experiments/*/*.md")
    for path in ROOT.glob(pattern)
)
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
COMMANDS = [
    (page, module, arguments.replace("\\\n", " "))
    for page, text in TEXTS.items()
    for module, arguments in re.findall(r"python -m (majl_jax\.\w+)((?: [^\n|`\\]+|\\\n)*)", text)
]


def test_the_readme_is_short_and_has_the_commands():
    assert len(TEXTS["README.md"].splitlines()) <= 150
    assert {"majl_jax.separate"} <= {name for page, name, _ in COMMANDS if page == "README.md"}
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("module", sorted({name for _, name, _ in COMMANDS}))
def test_options_in_the_docs_exist(module):
    """Every --option that a page gives a command is one that the command's help knows."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    known = set(re.findall(r"--(?:\[no\])?([a-zA-Z_-]+)", done.stdout + done.stderr))
    used = {
        option: page
        for page, name, arguments in COMMANDS
        if name == module
        # Not what stands in quotes: options of another program.
        for option in re.findall(r"(?<!\")--([a-zA-Z_-]+)", re.sub(r'="[^"]*"', "=", arguments))
    }
    assert {option: used[option] for option in used.keys() - known} == {}


@functools.cache
def _config(name, preset):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(preset)


def test_presets_and_fields_in_the_docs_exist():
    presets = {
        found
        for page, text in TEXTS.items()
        if page != TOY
        for found in re.findall(r"configs/(\w+)\.py:(\w+)", text)
    }
    assert {name for name, _ in presets} == set(main.RECIPES)
    for name, preset in presets:
        assert _config(name, preset).recipe == name
    for page, _, arguments in COMMANDS:
        named = re.search(r"--config=configs/(\w+)\.py:(\w+)", arguments)
        for field in re.findall(r"--config\.([\w.]+)=", arguments) if named else ():
            assert field in _flat(_config(*named.groups())), f"{page}: config.{field}"


def _flat(config, prefix=""):
    names = set()
    for key, value in config.items():
        names |= _flat(value, f"{prefix}{key}.") if hasattr(value, "items") else {prefix + key}
    return names


@pytest.mark.parametrize("page", sorted(TEXTS.keys() - {TOY}))
def test_paths_in_the_docs_exist(page):
    rooms = "majl_jax|configs|experiments|benchmarks|docs|tests|data/splits"
    named = re.findall(rf"(?<![\w./])(?:{rooms})/[\w./-]*\w", TEXTS[page])
    # In a listing or a chain of rooms, below majl_jax/.
    named += re.findall(r"`((?:[a-z_]+/)+\w+\.py)`", TEXTS[page])
    missing = [
        path
        for path in named
        if not ((ROOT / path).exists() or (ROOT / "majl_jax" / path).exists())
    ]
    assert [path for path in missing if not _is_a_pattern(path)] == []


def _is_a_pattern(path):
    return "NAME" in path


@pytest.mark.parametrize("page", TEXTS)
def test_links_in_the_docs_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", TEXTS[page], flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s#:]+)(?:#[^)\s]*)?\)", text):
        on_disk = posixpath.join(posixpath.dirname(page), target)
        assert (ROOT / on_disk).exists(), f"{page} links to {target}"


@pytest.mark.slow
def test_the_page_about_adding_a_paper_makes_a_recipe_that_trains(tmp_path, monkeypatch):
    """Four new files and one edited line, as they stand on the page, but for the place where they
    lie.
    """
    files = dict(re.findall(r'^```python title="([^"]+)"\n(.*?)^```', TEXTS[TOY], re.M | re.S))
    wanted = ("configs/toy.py", "majl_jax/recipes/toy.py", "majl_jax/main.py")
    assert set(wanted) < set(files)
    edited = files.pop("majl_jax/main.py").strip().replace(', "toy")', ")")
    assert edited in (ROOT / "majl_jax/main.py").read_text(encoding="utf-8")
    for name, code in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    recipe = _module("majl_jax.recipes.toy", tmp_path / "majl_jax/recipes/toy.py", monkeypatch)
    config = _module("toy_config", tmp_path / "configs/toy.py", monkeypatch).get_config("smoke")
    config.data.directory = str(made_music.prepare(tmp_path / "data"))
    results = loop.run(
        recipe.stages(config, tmp_path / "run"),
        tmp_path / "run",
        jax.random.key(0),
        loop.Options(**config.train.to_dict()),
        devices=jax.devices()[:1],
    )
    assert list(results) == ["copy", "mask"] and np.isfinite(results["mask"]["sdr_db"])
    assert recipe.segment_model(config).stems == ("soprano",)


@pytest.mark.slow
def test_the_page_about_python_runs(tmp_path, monkeypatch):
    """Its examples one after the other, with a run whose parameters are random."""
    make_run(tmp_path / "runs/majl")
    monkeypatch.chdir(tmp_path)
    sound = 0.1 * np.random.default_rng(0).standard_normal((22_050, 2))
    soundfile.write("song.mp3", sound, 44_100)
    assert export.main(["runs/majl", "--output=voice.safetensors", "--licence=CC0-1.0"]) == 0
    seen = {}
    for code in re.findall(r"^```python\n(.*?)^```", TEXTS["docs/python.md"], re.M | re.S):
        exec(compile(code, "docs/python.md", "exec"), seen)
    assert seen["out"].stems["soprano"].shape == seen["audio"].shape
    assert np.isfinite(seen["by_sample"]).all() and np.any(seen["by_sample"])


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    """All cells, with a run whose parameters are random, as Jupyter would run them."""
    make_run(tmp_path / "runs/majl")
    monkeypatch.chdir(tmp_path)
    sound = 0.1 * np.random.default_rng(0).standard_normal((22_050, 2))
    soundfile.write("song.mp3", sound, 44_100)
    shown = []
    player = types.SimpleNamespace(
        Audio=lambda data, rate: (data.shape, rate), display=shown.append
    )
    monkeypatch.setitem(sys.modules, "IPython.display", player)
    text = (ROOT / "docs/notebooks/three_lines.py").read_text(encoding="utf-8")
    seen = {}
    for cell in text.split("\n# %%")[1:]:
        exec(compile(cell.partition("\n")[2], "three_lines.py", "exec"), seen)
    assert shown[:3] == [(seen["audio"].T.shape, 44_100)] * 3
    shown[3].canvas.draw()
    pixels = np.asarray(shown[3].canvas.buffer_rgba())
    assert pixels.std() > 5, "the figure is drawn"
    np.testing.assert_allclose(seen["joined"], seen["stem"], atol=1e-5)


def test_the_trackers_of_the_docs_log_what_they_are_told(tmp_path, monkeypatch):
    code = dict(
        re.findall(
            r'^```python title="(\w+_tracker.py)"\n(.*?)^```', TEXTS["docs/runs.md"], re.M | re.S
        )
    )
    logged, begun = [], []
    run = types.SimpleNamespace(log=logged.append)
    wandb = types.SimpleNamespace(init=lambda **how: (begun.append(how), run)[1])
    mlflow = types.SimpleNamespace(
        start_run=lambda **how: begun.append(how),
        log_dict=lambda config, file: begun.append(config),
        log_metrics=lambda found, step: logged.append((found, step)),
    )
    for name, module in (("wandb", wandb), ("mlflow", mlflow)):
        monkeypatch.setitem(sys.modules, name, module)
        seen = {}
        exec(compile(code[f"{name}_tracker.py"], name, "exec"), seen)
        seen["tracker"](tmp_path, {"seed": 1})("teacher", 3, "train", {"loss": 0.5})
    assert logged == [
        {"teacher/train/loss": 0.5, "teacher/step": 3},
        ({"teacher/train/loss": 0.5}, 3),
    ]
    assert begun[0]["id"] == tmp_path.name and begun[2] == {"seed": 1}


def _module(name, path, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module
