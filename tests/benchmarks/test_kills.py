"""The first kill of benchmarks/kills.py: a run that was killed ends in the same parameters."""

import os
import re
import subprocess
import sys

import pytest
from places import ROOT


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_runs_end_in_the_same_parameters():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "kills", "--recipe=majl", "--kills=1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"majl: 1 kills, \d of them inside a save.*; 0 differences", done.stdout)
