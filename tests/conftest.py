"""A strict run: eight simulated devices, key reuse is an error, the same draws every time."""

import gc
import os
import pathlib
import shutil
import tempfile
import zlib

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_debug_key_reuse", True)

import hypothesis  # noqa: E402
import matplotlib as mpl  # noqa: E402

# Scripts that tests start keep what they compiled in a folder of this run, which its processes share.
_COMPILED = os.environ.setdefault("JAXNN_TESTS_COMPILED", "") or tempfile.mkdtemp(prefix="jaxnn-tests-")
os.environ |= {"JAXNN_TESTS_COMPILED": _COMPILED, "JAX_COMPILATION_CACHE_DIR": _COMPILED}

mpl.use("Agg")
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=50, database=None
)
hypothesis.settings.load_profile("repeatable")


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):  # the first process, which ends last
        shutil.rmtree(_COMPILED, ignore_errors=True)


def pytest_addoption(parser):
    parser.addoption(
        "--long", action="store_true", help="run every test that is marked long, not one in three"
    )


def pytest_collection_modifyitems(config, items):
    """Sample the long tests: always the same third, drawn by name."""
    if config.getoption("--long"):
        return
    left_out = [
        item for item in items if item.get_closest_marker("long") and zlib.crc32(item.name.encode()) % 3
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def in_precision(dtype):
    """A context in which JAX computes in that precision: float64 needs its flag."""
    return jax.enable_x64(np.dtype(dtype) == np.float64)


_MAPS = pathlib.Path("/proc/self/maps")  # Linux only


@pytest.fixture(autouse=True)
def _few_memory_maps():
    """Drop compiled programs in time: each holds memory maps, and past 65,530 of them Linux gives no more."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()
