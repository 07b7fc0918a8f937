"""An error that ends a run gives back the last epoch's model, and where the same call continues."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn
from jaxnn._training import train as training
from tests.helpers.params import long
from tests.training.test_train import blobs, identity_network

X, T, _ = blobs(45)
PAIRS = [(X[i : i + 9], T[i : i + 9]) for i in range(0, 45, 9)]


class LoaderError(Exception):
    """An error of others, which must stay what it is."""


class Failing:
    """Batches that end in an error in a certain epoch."""

    def __init__(self, error, epoch):
        self.error, self.epoch, self.started = error, epoch, 0

    def __iter__(self):
        self.started += 1
        yield from PAIRS[:3]
        if self.started == self.epoch:
            raise self.error
        yield from PAIRS[3:]


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("epoch", [3, 1])
@pytest.mark.parametrize("kind", [LoaderError, KeyboardInterrupt, *long(SystemExit, MemoryError)])
def test_an_error_of_the_data_gives_back_the_last_model(kind, epoch):
    error, network = kind("of the data"), identity_network()
    with pytest.raises(kind) as caught:
        jaxnn.train(network, Failing(error, epoch), epochs=4)
    assert caught.value is error
    model, history = network, jaxnn.History(jnp.zeros(0))
    if epoch > 1:
        model, history = jaxnn.train(network, PAIRS, epochs=epoch - 1)
    assert_same((error.epoch, error.model, error.history), (epoch, model, history))
    assert error.__notes__ == [
        f"Training stopped in epoch {epoch}; this error's `model` is from before that epoch"
    ]


def test_an_interrupt_of_a_step_gives_it_back_too(monkeypatch):
    step, steps = (
        training.advance_in_place,
        iter(range(3)),
    )  # two epochs of two parts, but for the first of each

    def interrupted(*args, **options):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return step(*args, **options)

    monkeypatch.setattr(training, "advance_in_place", interrupted)
    options = {"batch_size": 8, "key": jax.random.key(0), "optimizer": optax.adam(0.1)}
    with pytest.raises(KeyboardInterrupt) as caught:
        jaxnn.train(identity_network(), X, T, epochs=9, **options)
    monkeypatch.undo()
    assert caught.value.epoch == 4
    model, history = jaxnn.train(identity_network(), X, T, epochs=3, **options)
    assert_same((caught.value.model, caught.value.history), (model, history))


def test_with_checkpoints_the_error_says_where_the_same_call_continues(tmp_path):
    with pytest.raises(LoaderError) as caught:
        jaxnn.train(identity_network(), Failing(LoaderError(), 2), epochs=4, checkpoint=tmp_path)
    assert caught.value.__notes__[1:] == [f"The same call continues from {tmp_path}, after 5 steps"]
    again = jaxnn.train(identity_network(), PAIRS, epochs=4, checkpoint=tmp_path)
    assert_same(again[0], jaxnn.train(identity_network(), PAIRS, epochs=4)[0])


def test_an_error_with_a_model_of_its_own_keeps_it():
    error = LoaderError()
    error.model = "mine"
    with pytest.raises(LoaderError) as caught:
        jaxnn.train(identity_network(), Failing(error, 1), epochs=1)
    assert vars(caught.value) == {"model": "mine"}


def test_an_error_that_takes_no_attributes_stays_what_it_is():
    class FrozenError(Exception):
        def __setattr__(self, name, value):
            if not name.startswith("__"):
                raise AttributeError(name)
            super().__setattr__(name, value)

    with pytest.raises(FrozenError):
        jaxnn.train(identity_network(), Failing(FrozenError(), 1), epochs=1)


def test_no_tracer_leaves_a_transformation():
    with pytest.raises(LoaderError) as caught:
        jax.jit(lambda network: jaxnn.train(network, Failing(LoaderError(), 2), epochs=2))(identity_network())
    assert not hasattr(caught.value, "model")
