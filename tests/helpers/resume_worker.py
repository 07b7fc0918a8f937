"""A training run to be killed; see `forked`."""

import sys
from pathlib import Path

import jax
import numpy as np
import optax
import orbax.checkpoint  # noqa: F401 - once, before the processes are forked

import jaxnn
from tests.helpers.forked import serve


def main(folder: str, output: str, epochs: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(size=(400, 20)).astype(np.float32)
    labels = np.argmax(x @ rng.normal(size=(20, 3)), axis=1)
    network = jaxnn.init(jax.random.key(0), (20, 16, 3), output_activation="identity")
    network, history = jaxnn.train(
        network, x, labels, epochs=int(epochs), batch_size=2, key=jax.random.key(1),
        optimizer=optax.adam(1e-3), loss=jaxnn.losses.cross_entropy, validation=(x, labels),
        checkpoint=folder, checkpoint_every=50,
    )  # fmt: skip
    with Path(f"{output}.part").open("wb") as file:
        np.savez(file, *jax.tree.leaves((network, history)))
    Path(f"{output}.part").rename(output)


if __name__ == "__main__":
    if jax._src.xla_bridge.backends_are_initialized():
        sys.exit("imports must not initialize a device: its threads would be missing in a forked process")
    serve(main)
