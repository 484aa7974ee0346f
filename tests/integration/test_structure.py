"""The rules of the house that a machine can check."""

import subprocess
import sys

from places import ROOT

PACKAGE = ROOT / "majl_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))


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
