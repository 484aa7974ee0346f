"""Before JAX starts: four fake CPU devices, enough threads for their collectives, a compile
cache.
"""

import os
import pathlib
import sys

import pytest

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["NPROC"] = "16"  # the size of XLA's thread pool; with fewer, collectives can dead-lock
_FAKE_DEVICES = "--xla_force_host_platform_device_count=4"
if _FAKE_DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_FAKE_DEVICES}".strip()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")

# Arrays of different rank are an error where they meet, so that shapes which fit by mistake show:
# axes are added in the code, [None] or keepdims. Child processes inherit it.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

# XLA compiles twice as fast without most optimisations, and compiling is most of what the tests
# do. Benchmarks and users run with them; JAX_DISABLE_MOST_OPTIMIZATIONS=0 tests with them.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Programs, the smallest ones too, are compiled once for all tests, workers, child processes and
# sessions of this checkout; `make clean` forgets them.
_COMPILED = pathlib.Path(__file__).parents[1] / "build" / "compiled_tests"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_COMPILED)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

# A cache of Numba's for each worker: two that write librosa's generalised functions to one crash.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["NUMBA_CACHE_DIR"] = str(_COMPILED / f"numba_{_WORKER}")

# Tests share small models and scripts that lie beside them.
sys.path.insert(0, str(pathlib.Path(__file__).parent / "support"))


@pytest.fixture
def fully_optimised():
    """For tests of what XLA's optimisations give, such as the memory of a program."""
    import jax

    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def traced_once(monkeypatch):
    """The step of a stage is traced once, however often its training begins."""
    import functools

    from majl_jax import parallel
    from majl_jax.training import step

    made, make_step = {}, step.make_step

    def step_of(loss, *others):
        return made.setdefault(loss, make_step(loss, *others))

    monkeypatch.setattr(step, "make_step", step_of)
    monkeypatch.setattr(parallel, "sharded", functools.cache(parallel.sharded))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """Data, configs and `smoke` runs of the recipes, made once a worker (tests/support)."""
    from smoke_runs import SmokeRuns

    return SmokeRuns(tmp_path_factory.mktemp)


def pytest_collection_modifyitems(items):
    """Long tests begin first, so that no worker is left with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
