"""How fast is training 20 networks at once by `vmap`, beside one after another?

Networks 784-n-10 with biases, batches of ten; an epoch is the 4,000 training images of mnist-5k in a new
order. The loop calls the same `train` twenty times, compiled once; both start from new random weights.
"""

from functools import partial

import jax

import jaxnn
from experiments._common.digits import load_digits
from experiments._common.networks import train_sigmoids
from experiments.benchmarks._case import Case
from experiments.benchmarks._floor import Work
from experiments.benchmarks._measure import Build, Call

EPOCHS = 2  # per call
NETWORKS = 20


def cases(quick: bool) -> list[Case]:
    """Two sizes."""
    count = 4 if quick else NETWORKS
    sized = []
    for size in (10, 100):
        builds: dict[str, Build] = {
            "jaxnn, at once": partial(at_once, count, size), "in turn": partial(in_turn, count, size)
        }  # fmt: skip
        work = Work(count * EPOCHS * 4000 * 4 * (784 * size + size * 10))
        sized.append(Case("Many networks at once", f"{count} networks 784-{size}-10", builds, work))
    return sized


def at_once(count: int, hidden: int) -> Call:
    """All networks in one call, by `vmap` over their keys."""
    digits, turns = load_digits("mnist-5k"), iter(range(1000))

    def train(key: jax.Array) -> jaxnn.Network:
        return train_sigmoids(key, digits, hidden=(hidden,), epochs=EPOCHS, progress=False)

    return lambda: jax.vmap(train)(jax.random.split(jax.random.key(next(turns)), count))


def in_turn(count: int, hidden: int) -> Call:
    """A loop over the same keys."""
    digits, turns = load_digits("mnist-5k"), iter(range(1000))

    def train(key: jax.Array) -> jaxnn.Network:
        return train_sigmoids(key, digits, hidden=(hidden,), epochs=EPOCHS, progress=False)

    return lambda: [train(key) for key in jax.random.split(jax.random.key(next(turns)), count)]
