"""A strict run: eight simulated devices, key reuse is an error, the same draws every time.

Compiled programs are kept in `.pytest_cache`, shared by the workers and the scripts that tests start, so that
the second run of a file compiles nothing.
"""

import contextlib
import ctypes
import gc
import os
import pathlib
import sys

import jax
import numpy as np
import pytest

jax.config.update("jax_num_cpu_devices", 8)
# JAX's check does not look into its high primitives.
jax.config.update("jax_debug_key_reuse", not getattr(jax.config, "jax_remat3", False))

import hypothesis  # noqa: E402
import matplotlib as mpl  # noqa: E402

mpl.use("Agg")
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=50, database=None
)
hypothesis.settings.load_profile("repeatable")

ALL_BUT_THE_FIRST = "all but the first"  # of the cases of a test

# Small programs compile in half of the time without XLA's newer emitters, which JAX 0.11 cannot turn off.
QUICK_TO_COMPILE = "--xla_cpu_parallel_codegen_split_count=1" + (
    " --xla_cpu_use_fusion_emitters=false" if jax.__version_info__ < (0, 11) else ""
)


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the tests that are marked long, too")
    parser.addoption(
        "--row", metavar="NAME", help="of the contract, test all promises of this public function alone"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group(name): tests that run on one worker")
    config.addinivalue_line("markers", "without(check, reason): a check of JAX that is off, also where set")
    config.addinivalue_line(
        "markers", "optimized: with all of XLA's optimizations, which others have under --long only"
    )
    if getattr(config.option, "dist", "no") == "load":  # what `-n 2` means by itself
        config.option.dist = "loadgroup"
    compiled = str(config.rootpath / ".pytest_cache" / "compiled")
    os.environ |= {  # for the scripts that tests start
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    }
    jax.config.update("jax_compilation_cache_dir", compiled)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
    if not config.getoption("--long"):
        _start_backend(QUICK_TO_COMPILE)


def _start_backend(flags):
    """Start JAX with these flags of XLA, which it reads once; scripts that tests start do not get them."""
    given = os.environ.get("XLA_FLAGS")
    os.environ["XLA_FLAGS"] = f"{flags} {given or ''}"  # of a flag that is given twice, the last counts
    jax.devices()
    del os.environ["XLA_FLAGS"]
    if given is not None:
        os.environ["XLA_FLAGS"] = given


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Select tests, and group those that compile the same programs: a group runs on one worker."""
    row, long = config.getoption("--row"), config.getoption("--long")
    kept, left_out, started = [], [], set()
    for item in items:
        chosen = _row(item) == row if row else long or not _is_long(item, started)
        (kept if chosen else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = sorted(kept, key=_group)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _is_long(item, started):
    """Whether a test is long; of one that is so but for its first case, add its function to `started`."""
    mark = item.get_closest_marker("long")
    function = item.nodeid.partition("[")[0]
    if mark is None or (mark.args == (ALL_BUT_THE_FIRST,) and function not in started):
        started.add(function)
        return False
    if mark.args not in {(), (ALL_BUT_THE_FIRST,)}:
        raise pytest.UsageError(
            f"{item.nodeid}: long{mark.args}, expected long or long({ALL_BUT_THE_FIRST!r})"
        )
    return True


def _row(item):
    """The public function whose row of the contract a test is of, or None."""
    named = hasattr(item, "callspec") and "row" in item.callspec.params
    return item.callspec.id.split("-")[-1].split()[0] if named else None


def _group(item):
    return f"{item.path.stem} {_row(item) or ''}".strip()


def in_precision(dtype):
    """A context in which JAX computes in that precision: float64 needs its flag."""
    return jax.enable_x64(np.dtype(dtype) == np.float64)


def that_promotes(function):
    """A function of Flax or Haiku that mixes dtypes, which JAX's strict promotion refuses: as without it.

    `LayerNorm` and `RMSNorm` compare the dtype with float32, and `avg_pool` divides by an integer.
    """

    def promoting(*args, **options):
        with jax.numpy_dtype_promotion("standard"):
            return function(*args, **options)

    return promoting


@pytest.hookimpl(tryfirst=True)  # before the fixtures of its module
def pytest_runtest_setup(item):
    """Compile quickly, without most of XLA's optimizations, which saves a quarter of the time.

    Scripts that tests start, the pages of the documentation, docstrings and comparisons with other libraries
    compile as users do. Without optimizations XLA may round a value otherwise where it computes it again: the
    gradient of a maximum, which JAX finds by an equality, was 0 at some places.
    """
    marked = item.get_closest_marker("optimized") is not None or "peers" in item.path.parts
    optimized = marked or item.config.getoption("--long")
    if jax.config.values["jax_disable_most_optimizations"] == optimized:
        jax.config.update("jax_disable_most_optimizations", not optimized)
        jax.clear_caches()  # a program is found there however it was compiled


@pytest.fixture(autouse=True)
def _without_checks(request):
    """Turn off what the test is marked to be without, such as `check_tracer_leaks` or `debug_nans`."""
    with contextlib.ExitStack() as stack:
        for mark in request.node.iter_markers("without"):
            stack.enter_context(getattr(jax, mark.args[0])(False))
        yield


_PROCESS = pathlib.Path("/proc/self")  # Linux only
_MOST_MAPS = 12_000
_MOST_PAGES = 1_500_000_000 // 4096  # of memory in use, of each worker
_pages_after = [0]  # the last time that programs were dropped


@pytest.fixture(autouse=True)
def _bounded_memory():
    """Drop compiled programs in time.

    Each holds memory, and memory maps, of which Linux gives no more than 65,530. What a later test needs
    again comes from the cache on disk.
    """
    yield
    if not _PROCESS.exists():
        return
    # Less than a tenth more than was left the last time is not worth it.
    grown = _pages() > max(_MOST_PAGES, 1.1 * _pages_after[0])
    if grown or (_PROCESS / "maps").read_bytes().count(b"\n") > _MOST_MAPS:
        jax.clear_caches()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # back to the system, from the allocator's pools
        _pages_after[0] = _pages()


def _pages():
    """The memory in use, in pages of 4 KiB."""
    return int((_PROCESS / "statm").read_text().split()[1])
