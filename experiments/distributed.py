"""Do many devices, and many machines, learn and explain the same as one?

One network is trained on all devices of all processes, each of which reads only its own rows of every batch;
then each explains its own part of the test images, by integrated gradients. Run alone, this is one
process. On several hosts, start it on each with the same `--coordinator` and `--processes`, and its own
`--index`. However many there are, what comes out is the same up to rounding.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from jax.experimental import multihost_utils
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._digits import DataName
from experiments._options import check_at_least, check_between, check_seed
from experiments._results import make_folder, save_results
from jaxnn import attribution

ADAM = optax.adam(3e-3)


@dataclasses.dataclass(frozen=True)
class OwnRows:
    """Batches for `train`: this process's rows of each, in the same order each time they are gone through.

    Attributes:
        images: `(N, h, w)`, bytes; a memory-mapped file will do, as only these rows are read.
        labels: `(N,)`.
        batch_size: rows of a batch, on all processes together.
        seed: of the order.
    """

    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    seed: int

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Whole batches only: what is left could not be divided among the processes."""
        order = np.random.default_rng(self.seed).permutation(len(self.images))
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            rows = own(order[start : start + self.batch_size])
            yield np.asarray(jaxnn.datasets.encode_images(self.images[rows])), self.labels[rows]


def own(rows: np.ndarray) -> np.ndarray:
    """This process's part of some rows."""
    return np.array_split(rows, jax.process_count())[jax.process_index()]


def main(
    data: DataName = "mnist-5k",
    epochs: int = 5,
    batch_size: int = 64,
    seed: int = 0,
    coordinator: str = "localhost:9911",
    processes: int = 1,
    index: int = 0,
    output: Path = Path("results/distributed"),
) -> None:
    """Train and explain on every device of every process, and say how fast, and what came out.

    Args:
        data: "mnist-5k" and "digits" are bundled; "mnist" is downloaded, or read from JAXNN_DATA.
        epochs: how often each image is seen.
        batch_size: images a step, on all processes together; a multiple of all devices.
        seed: of the weights and the order.
        coordinator: where process 0 can be reached, `host:port`.
        processes: how many there are.
        index: which of them this is, from 0.
        output: the folder for pictures and numbers, written by process 0, and for checkpoints, by all: on
            several hosts, one that all of them see.
    """
    check_seed(seed)
    check_at_least("epochs", epochs, 1)
    check_at_least("batch_size", batch_size, 1)
    check_at_least("processes", processes, 1)
    check_between("index", index, 0, processes - 1)
    if processes > 1:
        jax.distributed.initialize(coordinator, processes, index)
    if batch_size % jax.device_count():
        raise ValueError(
            f"`batch_size` must be a multiple of all {jax.device_count()} devices; got {batch_size}"
        )
    if index == 0:
        make_folder(output)
    train, test = jaxnn.datasets.load(data)
    n_in = train.images[0].size
    network = jaxnn.init(jax.random.key(seed), (n_in, 100, 10), output_activation="identity")
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = OwnRows(train.images, train.labels, batch_size, seed)
    begun = time.perf_counter()
    network, history = jaxnn.train(
        network, rows, epochs=epochs, optimizer=ADAM, loss=jaxnn.losses.cross_entropy, mesh=mesh,
        checkpoint=output / "checkpoints" / f"{data}-{batch_size}-{seed}",  # which batches do not tell
    )  # fmt: skip
    loss = np.asarray(history.loss)
    trained = time.perf_counter()
    mine = own(np.arange(len(test.labels)))
    images = np.asarray(jaxnn.datasets.encode_images(test.images[mine]))
    local = jax.local_devices()
    answers, sizes = jaxnn.map_examples(
        jax.tree_util.Partial(explain, network), images, batch_size=32 * len(local),
        mesh=jax.sharding.Mesh(np.array(local), ("data",)),
    )  # fmt: skip
    right = float(np.sum(answers == test.labels[mine]))
    told = np.array([right, sizes.sum()], np.float32)
    right, size = np.sum(np.reshape(multihost_utils.process_allgather(told), (-1, 2)), axis=0).tolist()
    explained = time.perf_counter()
    if index == 0:
        metrics = {
            "processes": processes,
            "devices": jax.device_count(),
            "loss": loss.tolist(),
            "test_accuracy": right / len(test.labels),
            "sum_of_attribution_sizes": size,
            "seconds_of_training": trained - begun,
            "seconds_of_explaining": explained - trained,
        }
        save_results(
            output,
            settings={"data": data, "epochs": epochs, "batch_size": batch_size, "seed": seed},
            tables=[table_of(metrics, len(test.labels))],
            figures={"training": figure_of(loss)},
            metrics=metrics,
        )
        jaxnn.save(output / "network.jaxnn", jax.tree.map(lambda leaf: leaf.addressable_data(0), network))


def explain(network: jaxnn.Network, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The answer to an image, and the sum of the sizes of its attributions."""
    answer = network(x).argmax()
    shares = attribution.integrated_gradients(network, x, answer, steps=20)
    return answer, abs(shares).sum()


def table_of(metrics: dict[str, float], examples: int) -> Table:
    """What came out, and how long it took."""
    title = f"{metrics['processes']} processes, {metrics['devices']} devices"
    table = Table("", "", title=title, show_header=False)
    table.add_row("test accuracy", f"{metrics['test_accuracy']:.4f}")
    table.add_row("sum of the sizes of all attributions", f"{metrics['sum_of_attribution_sizes']:.4g}")
    table.add_row("seconds of training, the first with compilation", f"{metrics['seconds_of_training']:.1f}")
    table.add_row(f"seconds of explaining {examples} images", f"{metrics['seconds_of_explaining']:.1f}")
    return table


def figure_of(loss: np.ndarray) -> Figure:
    """The loss by epoch."""
    figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
    jaxnn.plot.training_curve(loss, ax=ax)
    figure.suptitle("Training on all devices, epoch by epoch")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
