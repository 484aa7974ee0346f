"""Before JAX starts: four fake CPU devices, enough threads for their collectives, a compile cache."""

import atexit
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = "16"  # the size of XLA's thread pool; with fewer, collectives can dead-lock
_FAKE_DEVICES = "--xla_force_host_platform_device_count=4"
if _FAKE_DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FAKE_DEVICES}".strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")

# A program is compiled once per session, also if several tests, workers or their child processes run it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _COMPILED = tempfile.mkdtemp(prefix="majl_jax_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
    atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)

# Tests share small models and scripts that lie beside them.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(scope="module")
def quick_compilation():
    """For tests that ask whether whole runs work, not how exactly or fast: XLA compiles twice as fast without most optimisations."""
    import jax

    name = "JAX_DISABLE_MOST_OPTIMIZATIONS"
    jax.config.update(name.lower(), True)
    os.environ[name] = "1"  # of child processes
    yield
    jax.config.update(name.lower(), False)
    del os.environ[name]
