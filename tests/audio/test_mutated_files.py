"""The first files of benchmarks/mutated_files.py: cut, joined, flipped and mislabelled ones are
read whole or refused.
"""

import os
import subprocess
import sys

import pytest
from places import ROOT

from majl_jax.audio import libav


@pytest.mark.slow
@pytest.mark.skipif(not libav.is_installed(), reason="PyAV is not installed")
@pytest.mark.skipif(sys.platform != "linux", reason="each file is read in a forked process")
def test_spoilt_files_are_read_whole_or_refused_by_name():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "mutated_files", "--files=128"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    total = next(line for line in done.stdout.splitlines() if line.startswith("all\t"))
    read, refused = map(int, total.split("\t")[1:])
    assert read + refused == 128 and min(read, refused) > 40
