"""The rules of the house that a machine can check."""

import subprocess
import sys

import pytest
from places import ROOT

PACKAGE = ROOT / "majl_jax"
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_no_drawer_for_odds_and_ends():
    assert not [p for p in MODULES if p.stem in ("utils", "util", "helpers", "common", "misc")]


@pytest.mark.xdist_group("kept_together")
def test_workers_know_groups_of_tests(request):
    """Else what a group shares is made by each worker, without a word: pytest 9.2 did that."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("needs several workers: make test")
    assert request.node.nodeid.endswith("@kept_together")


# Windows and macOS: our own modules may not need these to be imported.
HIDE_WHAT_OTHER_SYSTEMS_LACK = """
import builtins, os
given = builtins.__import__
def without(name, globals=None, *more, **kinds):
    ours = (globals or {}).get("__name__", "").split(".")[0] in ("majl_jax", "experiments")
    if ours and name in ("fcntl", "resource", "termios", "pwd", "grp"):
        raise ImportError(name)
    return given(name, globals, *more, **kinds)
builtins.__import__ = without
for name in ("sched_getaffinity", "sched_setaffinity"):
    delattr(os, name)
"""


def test_all_but_the_builder_imports_without_tensorflow_librosa_and_what_only_linux_has():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        if path.stem not in ("__init__", "builder")
    ]
    modules.append("experiments.__main__")
    code = (
        "import sys, importlib\n"
        f"{HIDE_WHAT_OTHER_SYSTEMS_LACK}\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print([m for m in ('tensorflow', 'librosa') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"
