"""The Dockerfile, as far as it can be looked at without Docker: its files, extras and command."""

import configparser
import fnmatch
import re

from places import ROOT

TEXT = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")


def test_what_is_copied_is_there_and_is_all_that_the_package_is_built_from():
    copied = {name for line in re.findall(r"^COPY (.*)$", TEXT, re.M) for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    builds = {"setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE", "majl_jax"}
    assert copied == builds | {"constraints.txt", "configs", "data/splits"}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[0] == "*" and copied == let_in


def test_its_extras_are_those_of_the_package_and_its_command_is_installed():
    (asked,) = re.findall(r'"\.\[([\w,]+)\$\{EXTRAS', TEXT)
    named = set(re.findall(r"EXTRAS=(\w+)", TEXT)) | set(asked.split(","))
    assert named <= set(SETUP["options.extras_require"]) and "cuda" in named
    (command,) = re.findall(r'^ENTRYPOINT \["(.*)"\]$', TEXT, re.M)
    assert f"{command} =" in SETUP["options.entry_points"]["console_scripts"]
    (python,) = re.findall(r"^ARG PYTHON=(.*)$", TEXT, re.M)
    known = SETUP["metadata"]["classifiers"].splitlines()
    assert fnmatch.filter(known, f"*Python :: {python}")
