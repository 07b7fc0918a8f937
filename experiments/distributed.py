"""Do many devices, and many machines, learn and explain the same as one?

One network is trained on all devices of all processes, each of which reads only its own rows of every batch;
then each process explains its own part of the test images by integrated gradients. By default there is one
process. On several hosts, start it on each with the same `--coordinator` and `--processes`, and its own
`--index`. The results do not depend on the number of processes, up to rounding.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.experimental import multihost_utils
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.digits import DataName
from experiments._common.options import check_at_least, check_between, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn import attribution

ADAM = optax.adam(3e-3)


@dataclasses.dataclass(frozen=True)
class OwnRows:
    """Batches for `train`: the rows of this process, in the same order in every epoch.

    Attributes:
        images: `(N, h, w)`, bytes; may be a memory-mapped file, as only these rows are read.
        labels: `(N,)`.
        batch_size: rows per batch, over all processes.
        seed: of the order.
    """

    images: np.ndarray
    labels: np.ndarray
    batch_size: int
    seed: int

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Full batches only: the rest could not be divided among the processes."""
        order = np.random.default_rng(self.seed).permutation(len(self.images))
        for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
            rows = own(order[start : start + self.batch_size])
            yield np.asarray(jaxnn.datasets.encode_images(self.images[rows])), self.labels[rows]


def own(rows: np.ndarray) -> np.ndarray:
    """The part of some rows that belongs to this process."""
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
    """Train and explain on every device of every process; report results and times.

    Args:
        data: "mnist-5k" and "digits" are bundled; "mnist" is downloaded, or read from JAXNN_DATA.
        epochs: number of passes over the images.
        batch_size: images per step, over all processes; a multiple of the number of devices.
        seed: of the weights and the order.
        coordinator: the address of process 0, `host:port`.
        processes: number of processes.
        index: of this process, from 0.
        output: the folder for pictures and numbers, written by process 0, and for checkpoints, by all:
            with several hosts, a shared folder.
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
            f"`batch_size` must be a multiple of the {jax.device_count()} devices; got {batch_size}"
        )
    if index == 0:
        make_folder(output)
    train, test = jaxnn.datasets.load(data)
    n_in = train.images[0].size
    network = jaxnn.init(jax.random.key(seed), (n_in, 100, 10), output_activation="identity")
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = OwnRows(train.images, train.labels, batch_size, seed)
    started = time.perf_counter()
    network, history = jaxnn.train(
        network, rows, epochs=epochs, optimizer=ADAM, loss=jaxnn.losses.cross_entropy, mesh=mesh,
        checkpoint=output / "checkpoints" / f"{data}-{batch_size}-{seed}",  # not checked by `train`
    )  # fmt: skip
    loss = np.asarray(history.loss)
    trained = time.perf_counter()
    indices = own(np.arange(len(test.labels)))
    images = np.asarray(jaxnn.datasets.encode_images(test.images[indices]))
    local = jax.local_devices()
    predictions, sizes = jaxnn.map_examples(
        jax.tree_util.Partial(explain, network), images, batch_size=32 * len(local),
        mesh=jax.sharding.Mesh(np.array(local), ("data",)),
    )  # fmt: skip
    correct = float(np.sum(predictions == test.labels[indices]))
    sums = np.array([correct, sizes.sum()], np.float32)
    correct, size = np.sum(np.reshape(multihost_utils.process_allgather(sums), (-1, 2)), axis=0).tolist()
    explained = time.perf_counter()
    if index == 0:
        metrics = {
            "processes": processes,
            "devices": jax.device_count(),
            "loss": loss.tolist(),
            "test_accuracy": correct / len(test.labels),
            "sum_of_attribution_sizes": size,
            "seconds_of_training": trained - started,
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
    """The predicted class of an image, and the l1 norm of its attributions."""
    prediction = network(x).argmax()
    values = attribution.integrated_gradients(network, x, prediction, steps=20)
    return prediction, abs(values).sum()


def table_of(metrics: dict[str, float], examples: int) -> Table:
    """The results and the times."""
    title = f"{metrics['processes']} processes, {metrics['devices']} devices"
    table = Table("", "", title=title, show_header=False)
    table.add_row("test accuracy", f"{metrics['test_accuracy']:.4f}")
    table.add_row("sum of all |attributions|", f"{metrics['sum_of_attribution_sizes']:.4g}")
    table.add_row("seconds of training, including compilation", f"{metrics['seconds_of_training']:.1f}")
    table.add_row(f"seconds of explaining {examples} images", f"{metrics['seconds_of_explaining']:.1f}")
    return table


def figure_of(loss: np.ndarray) -> Figure:
    """The loss per epoch."""
    figure, ax = plt.subplots(figsize=(6, 3.5), layout="constrained")
    jaxnn.plot.training_curve(loss, ax=ax)
    figure.suptitle("Training on all devices: the loss per epoch")
    return figure


if __name__ == "__main__":
    run_command(main)
