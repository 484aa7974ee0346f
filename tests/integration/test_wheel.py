"""The package as others install it: a wheel in an environment of its own, in another folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import numpy as np
import pytest
import soundfile
from made_runs import make_run
from places import ROOT

from majl_jax.terminal import COMMANDS
from majl_jax.terminal import main as majl_jax_command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what git knows, so that nothing is left in the checkout."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path_factory.mktemp("source")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, files.split("\0")):
        if (ROOT / name).is_file() and name.startswith(("majl_jax/", "configs/", "data/", "setup")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    for name in ("README.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir=dist"], cwd=source, check=True, capture_output=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs the console script of an environment that has the wheel, and lends it the packages that
    the wheel needs.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", symlinks=os.name != "nt")
    scheme = {"base": str(folder / "env"), "platbase": str(folder / "env")}
    own = pathlib.Path(sysconfig.get_path("purelib", "venv", scheme))
    scripts = pathlib.Path(sysconfig.get_path("scripts", "venv", scheme))
    python = str(scripts / "python")
    install = [sys.executable, "-m", "pip", f"--python={python}", "install", "--no-deps"]
    subprocess.run([*install, "--no-index", str(wheel)], check=True, capture_output=True)
    (own / "lent.pth").write_text(sysconfig.get_path("purelib"))

    def call(*words):
        words = (
            [python, *words[1:]] if words[0] == "python" else [str(scripts / words[0]), *words[1:]]
        )
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(words, cwd=folder, capture_output=True, text=True, env=clean)

    call.folder = folder
    return call


def test_the_wheel_has_configs_and_split_lists_and_nothing_of_the_tests(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in [*ROOT.glob("configs/*.py"), *ROOT.glob("data/splits/*.txt")]:
        assert f"majl_jax/{path.parent.name}/{path.name}" in names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"majl_jax"}


def test_the_package_is_that_of_the_environment_with_its_own_files(run):
    code = (
        "import majl_jax; from majl_jax import formats; print(majl_jax.__file__);"
        "print(len([*formats.SPLITS.glob('*.txt')]), len([*formats.CONFIGS.glob('*.py')]))"
    )
    done = run("python", "-c", code)
    file, counts = done.stdout.splitlines()
    assert file.startswith(str(run.folder)), done.stderr
    expected = [len([*ROOT.glob(pattern)]) for pattern in ("data/splits/*.txt", "configs/*.py")]
    assert counts == f"{expected[0]} {expected[1]}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(run, name):
    done = run("majl-jax", name, "--help")
    assert done.returncode == 0 and not done.stderr and "--" in done.stdout, done.stderr


def test_a_packaged_config_is_found(run):
    done = run(
        "majl-jax", "main", "--config=majl:smoke", "--config.data.directory=d", "--workdir=r"
    )
    assert done.returncode == 1 and "d/chorales" in done.stderr, done.stderr
    assert not (run.folder / "r").exists()


def test_a_run_is_exported_and_applied(run):
    make_run(run.folder / "run")
    done = run("majl-jax", "export", "run", "--output=voice.safetensors", "--licence=CC0-1.0")
    assert done.returncode == 0 and "majl, stage student" in done.stdout, done.stderr
    soundfile.write(run.folder / "a.wav", 0.1 * np.ones(16_000), 16_000)
    words = ["a.wav", "--checkpoint=voice.safetensors", "--output=out", "--batch_size=1"]
    done = run("majl-jax", "separate", *words)
    assert done.returncode == 0 and (run.folder / "out/a/soprano.wav").exists(), done.stderr


def test_a_config_that_there_is_not(run):
    done = run("majl-jax", "main", "--config=marl:smoke", "--workdir=r")
    assert done.returncode == 1
    assert "--config names marl, which is no file" in done.stderr
    assert "of those in the package: jukebox, majl, mixit, ss_mpe, transfer" in done.stderr


def test_a_command_that_there_is_not(capsys):
    assert majl_jax_command(["train"]) == 2
    assert "has no command 'train'; expected one of main, prepare" in capsys.readouterr().err
    assert majl_jax_command([]) == 2 and majl_jax_command(["--help"]) == 0
