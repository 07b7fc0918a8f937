"""Which of thirty measurements decide whether a tumor is called malignant?

A small network learns from scikit-learn's breast-cancer data, 569 patients with 30 measurements each. Which
measurements decide is asked for single patients, by integrated gradients from the average patient, and
over all held-out patients in two ways: the average size of those attributions, and how much the accuracy
falls when one measurement is shuffled among the patients. Measurements that say nearly the same
share what either way gives to them: a short bar is no proof that a measurement says nothing.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure
from rich.table import Table
from sklearn.datasets import load_breast_cancer

import jaxnn
from experiments._options import check_at_least, check_seed
from experiments._results import make_folder, save_results
from jaxnn import attribution, plot

ADAMW = optax.adamw(3e-3, weight_decay=1e-2)
MALIGNANT = 0  # the index of that answer, as scikit-learn has it
SHOWN = 10  # bars a patient


class Patients(NamedTuple):
    """Measurements in standard deviations from the mean of those trained on, `(N, 30)`, and labels `(N,)`."""

    inputs: jax.Array
    labels: np.ndarray
    test_inputs: jax.Array
    test_labels: np.ndarray
    names: list[str]
    raw: np.ndarray  # of the test patients, in the units of the data


def main(hidden: int = 16, epochs: int = 60, seed: int = 0, output: Path = Path("results/medical")) -> None:
    """Train on the breast-cancer data, and show which measurements decide.

    Args:
        hidden: hidden units.
        epochs: how often each patient is seen.
        seed: of the split, the weights and the order.
        output: the folder for pictures and numbers.
    """
    make_folder(output)
    check_seed(seed)
    check_at_least("hidden", hidden, 1)
    check_at_least("epochs", epochs, 1)
    keys = jax.random.split(jax.random.key(seed), 4)
    patients = load_patients(keys[0])
    network = jaxnn.init(keys[1], (30, hidden, 2), activation="tanh", output_activation="identity")
    network, _ = jaxnn.train(
        network, patients.inputs, jnp.asarray(patients.labels), key=keys[2], epochs=epochs, batch_size=16,
        optimizer=ADAMW, loss=jaxnn.losses.cross_entropy, progress=True,
    )  # fmt: skip
    logits = np.asarray(jaxnn.query(network, patients.test_inputs))
    test_accuracy = float(np.mean(logits.argmax(axis=1) == patients.test_labels))

    # The average patient is all zeros, so attributions add up to what sets this one apart from it.
    deciding = jaxnn.map_examples(
        jax.tree_util.Partial(explain, network), patients.test_inputs, batch_size=64
    )
    shuffled = attribution.permutation_importance(
        network, patients.test_inputs, jnp.asarray(patients.test_labels), key=keys[3], loss=wrong,
        n_samples=50, with_error=True,
    )  # fmt: skip
    chosen = patients_to_show(logits, patients.test_labels)
    save_results(
        output,
        settings={"hidden": hidden, "epochs": epochs, "seed": seed},
        tables=[
            table_of_answers(logits, patients.test_labels),
            table_of_features(deciding, shuffled, patients.names),
        ],
        figures={
            "patients": figure_of_patients(deciding, logits, patients, chosen),
            "overall": figure_of_all(deciding, shuffled, patients.names),
        },
        metrics={
            "test_accuracy": test_accuracy,
            "mean_size": dict(zip(patients.names, np.abs(deciding).mean(axis=0).tolist(), strict=True)),
            "accuracy_lost": dict(zip(patients.names, np.asarray(shuffled.value).tolist(), strict=True)),
        },
    )


def load_patients(key: jax.Array, share: float = 0.25) -> Patients:
    """Split the patients by lot, and measure all in the standard deviations of those trained on."""
    data = load_breast_cancer()
    order = np.asarray(jax.random.permutation(key, len(data.data)))
    held_out, rest = np.split(order, [round(share * len(order))])
    mean, deviation = data.data[rest].mean(axis=0), data.data[rest].std(axis=0)
    inputs = jnp.asarray((data.data - mean) / deviation, jnp.float32)
    return Patients(
        inputs[rest], data.target[rest], inputs[held_out], data.target[held_out],
        [str(name) for name in data.feature_names], data.data[held_out],
    )  # fmt: skip


def malignancy(logits: jax.Array) -> jax.Array:
    """The log-odds of malignant: what is attributed to the measurements."""
    return logits[MALIGNANT] - logits[1 - MALIGNANT]


def explain(network: jaxnn.Network, x: jax.Array) -> jax.Array:
    """What each measurement of one patient adds to the log-odds, beside the average patient."""
    return attribution.integrated_gradients(network, x, malignancy)


def wrong(logits: jax.Array, label: jax.Array) -> jax.Array:
    """1 for a wrong answer, 0 for a right one: a loss whose mean is the share of errors."""
    return (jnp.argmax(logits) != label).astype(jnp.float32)


def patients_to_show(logits: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """The surest right answer of each kind, and the patient whom the network is least sure of."""
    odds = logits[:, MALIGNANT] - logits[:, 1 - MALIGNANT]
    return {
        "surely malignant": int(np.argmax(np.where(labels == MALIGNANT, odds, -np.inf))),
        "surely benign": int(np.argmin(np.where(labels != MALIGNANT, odds, np.inf))),
        "in doubt": int(np.argmin(np.abs(odds))),
    }


def table_of_answers(logits: np.ndarray, labels: np.ndarray) -> Table:
    """Rights and wrongs of each kind, of the patients held out."""
    answers = logits.argmax(axis=1)
    table = Table(
        "patients held out", "number", "called malignant", "called benign", title="What the network says"
    )
    for name, kind in (("malignant", MALIGNANT), ("benign", 1 - MALIGNANT)):
        said = answers[labels == kind]
        table.add_row(name, str(said.size), str(np.sum(said == MALIGNANT)), str(np.sum(said != MALIGNANT)))
    return table


def table_of_features(deciding: np.ndarray, shuffled: attribution.Estimate, names: list[str]) -> Table:
    """The ten measurements with the largest attributions, and what shuffling each costs."""
    sizes = np.abs(deciding).mean(axis=0)
    columns = ("measurement", "mean |attribution|, log-odds", "errors when shuffled, more by")
    table = Table(*columns, title="Which measurements decide, over all patients held out")
    for i in np.argsort(-sizes)[:SHOWN]:
        cost, error = 100 * float(shuffled.value[i]), 100 * float(shuffled.standard_error[i])
        table.add_row(names[i], f"{sizes[i]:.2f}", f"{cost:.1f} ± {error:.1f} %".replace("-", "\u2212"))
    return table


def figure_of_patients(
    deciding: np.ndarray, logits: np.ndarray, patients: Patients, chosen: dict[str, int]
) -> Figure:
    """For each chosen patient the ten strongest measurements, with their values in the data's units."""
    figure, axes = plt.subplots(1, len(chosen), figsize=(16, 4.6), layout="constrained", sharex=True)
    for ax, (kind, i) in zip(axes, chosen.items(), strict=True):
        odds = logits[i, MALIGNANT] - logits[i, 1 - MALIGNANT]
        probability = 100 / (1 + np.exp(-odds))
        truth = "malignant" if patients.test_labels[i] == MALIGNANT else "benign"
        labels = [
            f"{name} = {value:,.4g}" for name, value in zip(patients.names, patients.raw[i], strict=True)
        ]
        plot.feature_bars(
            deciding[i], labels, k=SHOWN, ax=ax, name="adds to the log-odds of malignant",
            title=f"{kind}\n{probability:.1f} % malignant (is {truth})",
        )  # fmt: skip
    figure.suptitle(
        "What decided for three patients, beside the average patient (blue: malignant, orange: benign)"
    )
    return figure


def figure_of_all(deciding: np.ndarray, shuffled: attribution.Estimate, names: list[str]) -> Figure:
    """All thirty measurements, by both ways of asking."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 7), layout="constrained")
    sizes = np.abs(deciding)
    error = sizes.std(axis=0, ddof=1) / np.sqrt(len(sizes))
    plot.feature_bars(
        sizes.mean(axis=0), names, errors=error, ax=left, name="mean |attribution|, log-odds of malignant",
        title="by integrated gradients",
    )  # fmt: skip
    plot.feature_bars(
        100 * np.asarray(shuffled.value), names, errors=100 * np.asarray(shuffled.standard_error), ax=right,
        name="more errors, % of the patients", title="by shuffling it among the patients",
    )  # fmt: skip
    figure.suptitle("Which measurements decide, over all patients held out (lines: standard errors)")
    return figure


if __name__ == "__main__":
    tyro.cli(main)
