"""The rules of the house that a machine can check."""

import ast
import pathlib
import subprocess
import sys

import pytest
from places import ROOT

PACKAGE = ROOT / "majl_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))


def _imports(path: pathlib.Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_a_recipe(path):
    # main.py and separate.py load a recipe by its name.
    assert not any(name.startswith("majl_jax.recipes") for name in _imports(path))


@pytest.mark.parametrize("room", ["audio", "losses", "models"])
def test_rooms_that_know_arrays_only(room):
    forbidden = ("tensorflow", "ml_collections", "majl_jax.datasets", "majl_jax.recipes", "absl")
    for path in (PACKAGE / room).rglob("*.py"):
        found = [name for name in _imports(path) if name.startswith(forbidden)]
        assert not found, f"{path} imports {found}"


def test_no_drawer_for_odds_and_ends():
    assert not [p for p in MODULES if p.stem in ("utils", "util", "helpers", "common", "misc")]


def test_everything_but_the_builder_imports_without_tensorflow_and_librosa():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        if path.stem not in ("__init__", "builder")
    ]
    code = (
        "import sys, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print([m for m in ('tensorflow', 'librosa') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"
