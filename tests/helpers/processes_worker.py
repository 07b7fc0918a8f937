"""Train in one of two processes: `python -m tests.helpers.processes_worker INDEX PORT FOLDER`."""

import sys

import jax
import numpy as np
import optax
from jax.experimental import multihost_utils

import jaxnn

ADAM = optax.adam(0.01)


def trained(**options):
    """What all processes together are to come to, and one alone."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(45, 4)).astype(np.float32), np.arange(45) % 3
    network = jaxnn.init(jax.random.key(0), (4, 6, 3), output_activation="identity")
    network = jax.device_put(network, jax.local_devices()[0])
    return jaxnn.train(
        network, x, labels, batch_size=8, key=jax.random.key(1), optimizer=ADAM, validation=(x, labels),
        loss=jaxnn.losses.cross_entropy, **options,
    )  # fmt: skip


def main(index: str, port: str, folder: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, int(index))
    mesh = jax.make_mesh((2, 2), ("data", "model"))
    for epochs in (1, 2):
        found = trained(epochs=epochs, mesh=mesh, checkpoint=f"{folder}/run", checkpoint_every=2)
    whole = multihost_utils.process_allgather(found, tiled=True)
    if index == "0":
        np.savez(f"{folder}/found.npz", *jax.tree.leaves(whole))


if __name__ == "__main__":
    main(*sys.argv[1:])
