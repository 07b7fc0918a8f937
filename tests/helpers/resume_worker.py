"""A training run to be killed: `python -m tests.helpers.resume_worker FOLDER OUTPUT`."""

import sys
from pathlib import Path

import jax
import numpy as np
import optax

import jaxnn


def main(folder: str, output: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(400, 20)).astype(np.float32)
    labels = np.argmax(x @ rng.normal(size=(20, 3)), axis=1)
    network = jaxnn.init(jax.random.key(0), (20, 16, 3), output_activation="identity")
    network, history = jaxnn.train(
        network, x, labels, epochs=6, batch_size=2, key=jax.random.key(1), optimizer=optax.adam(1e-3),
        loss=jaxnn.losses.cross_entropy, validation=(x, labels), checkpoint=folder, checkpoint_every=50,
    )  # fmt: skip
    with Path(f"{output}.part").open("wb") as file:
        np.savez(file, *jax.tree.leaves((network, history)))
    Path(f"{output}.part").rename(output)


if __name__ == "__main__":
    main(*sys.argv[1:])
