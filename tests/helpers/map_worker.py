"""A map to be killed: `python -m tests.helpers.map_worker FOLDER`."""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import jaxnn
from jaxnn import _outputs

BATCHES, PAUSE = 150, 0.0  # seconds of each batch, at least


def explain(network, x, number):
    number = jax.pure_callback(_wait, jax.typeof(number), number, vmap_method="expand_dims")
    return {"map": jax.grad(lambda x: network(x)[1])(x).astype(jnp.bfloat16), "number": number}


def _wait(number):
    time.sleep(PAUSE)
    return np.asarray(number)


def call(out):
    """The call, with the settings of the processes of tests."""
    network = jaxnn.init(jax.random.key(0), (20, 16, 3))
    x = np.random.default_rng(0).uniform(size=(8 * BATCHES - 3, 20)).astype(np.float32)
    return jaxnn.map_examples(Partial(explain, network), x, np.arange(len(x)), batch_size=8, out=out)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    PAUSE = 0.02
    _outputs._SECONDS = 0.05  # many records in a short time
    call(sys.argv[1])
