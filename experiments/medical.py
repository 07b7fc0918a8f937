"""Which of thirty measurements decide whether a tumor is called malignant?

A small network is trained on scikit-learn's breast-cancer data, 569 patients with 30 measurements each.
Single patients are explained by integrated gradients from the mean patient, and all test patients in two
ways: the mean absolute attribution, and permutation importance, the loss of accuracy when one measurement is
shuffled among the patients. Correlated measurements divide their importance among them: a short bar is no
proof that a measurement carries no information.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.table import Table
from sklearn.datasets import load_breast_cancer

import jaxnn
from experiments._common.command import run_command
from experiments._common.figures import true_minus
from experiments._common.options import check_at_least, check_seed, make_folder
from experiments._common.results import save_results
from jaxnn import attribution, plot

ADAMW = optax.adamw(3e-3, weight_decay=1e-2)
MALIGNANT = 0  # scikit-learn's index of the class
SHOWN = 10  # bars per patient


class Patients(NamedTuple):
    """Measurements `(N, 30)`, standardized by the training patients, and labels `(N,)`."""

    inputs: jax.Array
    labels: np.ndarray
    test_inputs: jax.Array
    test_labels: np.ndarray
    names: list[str]
    raw: np.ndarray  # of the test patients, in the units of the data


def main(hidden: int = 16, epochs: int = 60, seed: int = 0, output: Path = Path("results/medical")) -> None:
    """Train on the breast-cancer data, and compute the importance of the measurements.

    Args:
        hidden: number of hidden units.
        epochs: number of passes over the patients.
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

    # The mean patient is all zeros: attributions add up to the difference of the outputs.
    attributions = jaxnn.map_examples(
        jax.tree_util.Partial(explain, network), patients.test_inputs, batch_size=64
    )
    shuffled = attribution.permutation_importance(
        network, patients.test_inputs, jnp.asarray(patients.test_labels), key=keys[3], loss=error,
        n_samples=50, with_error=True,
    )  # fmt: skip
    chosen = patients_to_show(logits, patients.test_labels)
    save_results(
        output,
        settings={"hidden": hidden, "epochs": epochs, "seed": seed},
        tables=[
            table_of_predictions(logits, patients.test_labels),
            table_of_features(attributions, shuffled, patients.names),
        ],
        figures={
            "patients": figure_of_patients(attributions, logits, patients, chosen),
            "overall": figure_of_all(attributions, shuffled, patients.names),
        },
        metrics={
            "test_accuracy": test_accuracy,
            "mean_size": dict(zip(patients.names, np.abs(attributions).mean(axis=0).tolist(), strict=True)),
            "accuracy_lost": dict(zip(patients.names, np.asarray(shuffled.value).tolist(), strict=True)),
        },
    )


def load_patients(key: jax.Array, fraction: float = 0.25) -> Patients:
    """Select test patients at random, and standardize all measurements by the training patients."""
    data = load_breast_cancer()
    order = np.asarray(jax.random.permutation(key, len(data.data)))
    test, train = np.split(order, [round(fraction * len(order))])
    mean, deviation = data.data[train].mean(axis=0), data.data[train].std(axis=0)
    inputs = jnp.asarray((data.data - mean) / deviation, jnp.float32)
    return Patients(
        inputs[train], data.target[train], inputs[test], data.target[test],
        [str(name) for name in data.feature_names], data.data[test],
    )  # fmt: skip


def malignancy(logits: jax.Array) -> jax.Array:
    """The log-odds of malignant, the target of the attributions."""
    return logits[MALIGNANT] - logits[1 - MALIGNANT]


def explain(network: jaxnn.Network, x: jax.Array) -> jax.Array:
    """Integrated gradients of the log-odds for one patient, from the mean patient."""
    return attribution.integrated_gradients(network, x, malignancy)


def error(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Zero-one loss."""
    return (jnp.argmax(logits) != label).astype(jnp.float32)


def patients_to_show(logits: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """The most confident correct prediction of each class, and the least confident prediction."""
    odds = logits[:, MALIGNANT] - logits[:, 1 - MALIGNANT]
    return {
        "surely malignant": int(np.argmax(np.where(labels == MALIGNANT, odds, -np.inf))),
        "surely benign": int(np.argmin(np.where(labels != MALIGNANT, odds, np.inf))),
        "in doubt": int(np.argmin(np.abs(odds))),
    }


def table_of_predictions(logits: np.ndarray, labels: np.ndarray) -> Table:
    """The confusion matrix of the test patients."""
    predictions = logits.argmax(axis=1)
    table = Table("test patients", "number", "predicted malignant", "predicted benign", title="Predictions")
    for name, kind in (("malignant", MALIGNANT), ("benign", 1 - MALIGNANT)):
        of_kind = predictions[labels == kind]
        malignant = np.sum(of_kind == MALIGNANT)
        table.add_row(name, str(of_kind.size), str(malignant), str(of_kind.size - malignant))
    return table


def table_of_features(attributions: np.ndarray, shuffled: attribution.Estimate, names: list[str]) -> Table:
    """The ten measurements with the largest attributions, and their permutation importance."""
    sizes = np.abs(attributions).mean(axis=0)
    columns = ("measurement", "mean |attribution|, log-odds", "increase of errors when shuffled")
    table = Table(*columns, title="Importance of the measurements over all test patients")
    for i in np.argsort(-sizes)[:SHOWN]:
        cost, deviation = 100 * float(shuffled.value[i]), 100 * float(shuffled.standard_error[i])
        table.add_row(names[i], f"{sizes[i]:.2f}", true_minus(f"{cost:.1f} ± {deviation:.1f} %"))
    return table


def figure_of_patients(
    attributions: np.ndarray, logits: np.ndarray, patients: Patients, chosen: dict[str, int]
) -> Figure:
    """For each chosen patient the ten largest attributions, with the measurements in their units."""
    figure, axes = plt.subplots(1, len(chosen), figsize=(16, 4.6), layout="constrained", sharex=True)
    for ax, (kind, i) in zip(axes, chosen.items(), strict=True):
        odds = logits[i, MALIGNANT] - logits[i, 1 - MALIGNANT]
        probability = 100 / (1 + np.exp(-odds))
        truth = "malignant" if patients.test_labels[i] == MALIGNANT else "benign"
        labels = [
            f"{name} = {value:,.4g}" for name, value in zip(patients.names, patients.raw[i], strict=True)
        ]
        plot.feature_bars(
            attributions[i], labels, k=SHOWN, ax=ax, name="adds to the log-odds of malignant",
            title=f"{kind}\n{probability:.1f} % malignant (is {truth})",
        )  # fmt: skip
    figure.suptitle(
        "Attributions for three patients, relative to the mean patient (blue: malignant, orange: benign)"
    )
    return figure


def figure_of_all(attributions: np.ndarray, shuffled: attribution.Estimate, names: list[str]) -> Figure:
    """All thirty measurements, by both methods."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 7), layout="constrained")
    sizes = np.abs(attributions)
    errors = sizes.std(axis=0, ddof=1) / np.sqrt(len(sizes))
    plot.feature_bars(
        sizes.mean(axis=0), names, errors=errors, ax=left, name="mean |attribution|, log-odds of malignant",
        title="integrated gradients",
    )  # fmt: skip
    plot.feature_bars(
        100 * np.asarray(shuffled.value), names, errors=100 * np.asarray(shuffled.standard_error), ax=right,
        name="increase of errors, % of the patients", title="permutation importance",
    )  # fmt: skip
    figure.suptitle("Importance of the measurements over all test patients (lines: standard errors)")
    return figure


if __name__ == "__main__":
    run_command(main)
