"""Calls in a loop keep nothing and compile nothing, and what calls of many shapes keep is given back."""

import functools
import gc
import weakref

import jax
import numpy as np
import pytest

import jaxnn
from tests.helpers.calls import calls

COMPILED = "/jax/core/compile/backend_compile_duration"
OFTEN_CALLED = [
    "attacks.pgd", "attribution.deep_lift", "attribution.integrated_gradients", "attribution.kernel_shap",
    "attribution.permutation_importance", "attribution.saliency", "backquery", "capture", "dream", "explain",
    "map_examples", "rules.anchor", "rules.linear_region", "train",
]  # fmt: skip


@pytest.fixture
def compilations():
    """The names of compilations while the test runs."""
    found = []

    def listen(event, duration, **_):
        if event == COMPILED:
            found.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(autouse=True)
def _objects_of_the_test_alone():
    """Leave out what was alive before, which takes long to count."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def counted():
    """The numbers of arrays and of Python's objects that are alive, without those from before the test.

    JAX keeps one weak reference of each function that it ever evaluated the shapes of; these do not count.
    """
    gc.collect()
    return len(jax.live_arrays()), sum(not isinstance(each, weakref.ref) for each in gc.get_objects())


def check_no_growth(call, times, compilations):
    """Call a function thrice, and then more often: nothing more must be alive, and nothing compiled."""
    for _ in range(3):
        call()
    arrays, objects = counted()
    before = len(compilations)
    for _ in range(times):
        call()
    more_arrays, more_objects = counted()
    assert more_arrays <= arrays
    assert more_objects - objects < max(times // 2, 8)
    assert len(compilations) == before


@pytest.mark.parametrize("name", OFTEN_CALLED)
def test_calls_of_one_shape_leave_nothing_behind(name, compilations):
    check_no_growth(calls()[name], 16, compilations)


@pytest.mark.long
@pytest.mark.parametrize("name", calls())
def test_500_calls_of_one_shape_leave_nothing_behind(name, compilations):
    check_no_growth(calls()[name], 500, compilations)


def test_what_many_shapes_keep_is_given_back():
    """Each shape is a program of its own, which JAX keeps until its caches are cleared."""
    network = jaxnn.init(jax.random.key(0), (4, 5, 3))
    explain = functools.partial(jaxnn.attribution.integrated_gradients, steps=4)

    def of_shapes(sizes):
        for size in sizes:
            jax.vmap(explain, (None, 0, None))(network, np.ones((size, 4), np.float32), 1)

    of_shapes(range(1, 3))
    jax.clear_caches()
    _, before = counted()
    of_shapes(range(1, 9))
    _, grown = counted()
    jax.clear_caches()
    _, after = counted()
    assert grown > before
    assert after - before < 0.2 * (grown - before)
