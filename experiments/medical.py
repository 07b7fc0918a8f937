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
import numpy as np
import optax
from sklearn.datasets import load_breast_cancer

import jaxnn
from experiments._options import check_at_least
from experiments._results import save_results
from jaxnn import attribution

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
    output.mkdir(parents=True, exist_ok=True)
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
        network, patients.test_inputs, jnp.asarray(patients.test_labels), key=keys[3], with_error=True
    )
    chosen = patients_to_show(logits, patients.test_labels)
    save_results(
        output,
        settings={"hidden": hidden, "epochs": epochs, "seed": seed},
        tables=[
            table_of_answers(logits, patients.test_labels),
            table_of_features(np.asarray(deciding), shuffled, patients.names),
        ],
        figures={
            "patients": figure_of_patients(np.asarray(deciding), logits, patients, chosen),
            "overall": figure_of_all(np.asarray(deciding), shuffled, patients.names),
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


def patients_to_show(logits: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    """The surest right answer of each kind, and the patient whom the network is least sure of."""
    odds = logits[:, MALIGNANT] - logits[:, 1 - MALIGNANT]
    return {
        "surely malignant": int(np.argmax(np.where(labels == MALIGNANT, odds, -np.inf))),
        "surely benign": int(np.argmin(np.where(labels != MALIGNANT, odds, np.inf))),
        "in doubt": int(np.argmin(np.abs(odds))),
    }
