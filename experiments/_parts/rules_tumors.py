"""Trees, rule lists and anchors of a network that classifies tumors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_breast_cancer

import jaxnn
from experiments._common.figures import titled
from experiments._common.results import Results
from jaxnn import plot, rules

ADAMW = optax.adamw(3e-3, weight_decay=1e-2)  # one object: `train` compares a static optimizer by identity
DEEPEST = 8  # of the fidelity curve
SHOWN_DEPTH = 3  # of the tree that is drawn: eight leaves, which a person can read
RuleSet = rules.TreeRules | rules.RuleList


class Patients(NamedTuple):
    """One split of the patients, in the units of the data, and a network trained on one part."""

    model: jax.tree_util.Partial  # of measurements in the units of the data
    inputs: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray


class Disagreement(NamedTuple):
    """A test patient for whom the predictions of tree and network differ."""

    patient: int
    network: int
    tree: int
    label: int
    probability: float
    rule: str


def describe_tumors(key: jax.Array, splits: int) -> Results:
    """Fit each kind of rules on all splits; the first split is shown."""
    bunch = load_breast_cancer()
    # Malignant is class 1, so that it is blue in all pictures of tumors.
    words: dict[str, Any] = {"names": bunch.feature_names.tolist(), "classes": ["benign", "malignant"]}
    labels = 1 - bunch.target
    rule_sets: dict[str, list[RuleSet]] = {}
    keys = jax.random.split(key, splits)
    for split_key in track(keys, "splits of the patients"):
        patients = split_patients(split_key, bunch.data, labels)
        for kind, rule_set in fit_all(split_key, patients, words).items():
            rule_sets.setdefault(kind, []).append(rule_set)
    shown = split_patients(keys[0], bunch.data, labels)
    tree = fit_tree(keys[0], shown, words, max_depth=SHOWN_DEPTH)
    rule_list = rule_sets["a rule list"][0]
    trees = [each for each in rule_sets["a tree"] if isinstance(each, rules.TreeRules)]
    differing = disagreements(shown, tree)
    figures = {
        "tumors_tree": titled(
            plot.decision_tree(tree.tree, **words),
            f"Tumors: a tree of {SHOWN_DEPTH} questions, fidelity {tree.fidelity:.0%} on test patients",
        ),
        "tumors_list": titled(
            plot.rule_list(rule_list),
            f"Tumors: a rule list, fidelity {rule_list.fidelity:.0%} on test patients",
        ),
        "tumors_depth": figure_of_depth(trees),
    }
    anchors = {}
    for who, i in patients_to_show(shown).items():
        anchor = rules.anchor(shown.model, shown.test_inputs[i], shown.inputs, key=keys[0], **words)
        anchors[who] = anchor
        if anchor.verified and np.isfinite(anchor.rule.low).any() | np.isfinite(anchor.rule.high).any():
            axes = plot.rule_on_data(anchor.rule, shown.inputs, x=shown.test_inputs[i], names=words["names"])
            figures[f"tumors_anchor_{who.replace(' ', '_')}"] = titled(
                axes, f"{who.capitalize()}:\nan anchor for {words['classes'][anchor.rule.prediction]}"
            )
    metrics = {kind: summary(each) for kind, each in rule_sets.items()} | {
        "depth_curve": mean_curve(trees).tolist(),
        "tree_text": tree.text,
        "list_text": rule_list.text,
        "disagreements": len(differing),
        "anchors": {
            who: {"rule": a.rule.text, "precision": a.rule.precision, "bound": a.bound,
                  "coverage": a.rule.coverage, "verified": a.verified}
            for who, a in anchors.items()
        },
    }  # fmt: skip
    tables = [
        table_of_rule_sets(rule_sets, splits),
        table_of_leaves(tree),
        table_of_disagreements(differing, words["classes"]),
        table_of_anchors(anchors),
    ]
    return Results(tables, figures, {"tumors": metrics})


def in_units(
    network: jaxnn.Network, mean: jax.Array, deviation: jax.Array, measurements: jax.Array
) -> jax.Array:
    """The output for measurements in the units of the data; the network was trained on standardized ones."""
    return network((measurements - mean) / deviation)


def split_patients(key: jax.Array, data: np.ndarray, labels: np.ndarray) -> Patients:
    """Select a quarter of the patients at random for testing, and train a network on the others."""
    split_key, init_key, order_key = jax.random.split(key, 3)
    order = np.asarray(jax.random.permutation(split_key, len(data)))
    test, train = np.split(order, [len(order) // 4])
    mean, deviation = (jnp.asarray(f(data[train], axis=0), jnp.float32) for f in (np.mean, np.std))
    raw = data.astype(np.float32)
    network = jaxnn.init(init_key, (30, 16, 2), activation="tanh", output_activation="identity")
    network, _ = jaxnn.train(
        network, (raw[train] - mean) / deviation, jnp.asarray(labels[train]), key=order_key, epochs=60,
        batch_size=16, optimizer=ADAMW, loss=jaxnn.losses.cross_entropy,
    )  # fmt: skip
    model = jax.tree_util.Partial(in_units, network, mean, deviation)
    return Patients(model, raw[train], raw[test], labels[test])


def fit_tree(key: jax.Array, patients: Patients, words: dict[str, Any], **options: Any) -> rules.TreeRules:
    """Distill the network into a tree, by default on all training patients."""
    inputs = options.pop("inputs", patients.inputs)
    return rules.distill_tree(
        patients.model, inputs, held_out=patients.test_inputs, held_out_labels=patients.test_labels,
        key=key, **words, **options,
    )  # fmt: skip


def fit_all(key: jax.Array, patients: Patients, words: dict[str, Any]) -> dict[str, RuleSet]:
    """The rules of one split, by kind."""
    few = patients.inputs[: len(patients.inputs) // 10]
    options: dict[str, Any] = {
        "held_out": patients.test_inputs,
        "held_out_labels": patients.test_labels,
        "key": key,
    } | words
    return {
        "a tree": fit_tree(key, patients, words, max_depth=DEEPEST),
        "a tree of 5 questions": fit_tree(key, patients, words),
        "the same, no samples drawn": fit_tree(key, patients, words, n_samples=0),
        "the same, a tenth of the data": fit_tree(key, patients, words, inputs=few),
        "trepan, 5 questions": rules.trepan(patients.model, patients.inputs, **options),
        "trepan, a tenth of the data": rules.trepan(patients.model, few, **options),
        "a rule list": rules.rule_list(patients.model, patients.inputs, **options),
    }


def summary(rule_sets: list[RuleSet]) -> dict[str, float]:
    """Mean and standard deviation over the splits."""
    fidelity = np.array([each.fidelity for each in rule_sets])
    return {
        "fidelity": float(fidelity.mean()),
        "fidelity_deviation": float(fidelity.std()),
        "fidelity_worst": float(fidelity.min()),
        "accuracy": float(np.mean([each.accuracy for each in rule_sets])),
        "rules": float(np.mean([len(each.rules) for each in rule_sets])),
    }


def mean_curve(trees: list[rules.TreeRules]) -> np.ndarray:
    """The mean fidelity after 0, 1, ... questions; a shallower tree keeps its last value."""
    return np.stack([np.pad(t.curve, (0, DEEPEST + 1 - len(t.curve)), mode="edge") for t in trees]).mean(
        axis=0
    )


def disagreements(patients: Patients, tree_rules: rules.TreeRules) -> list[Disagreement]:
    """The test patients for whom the predictions of tree and network differ."""
    logits = np.asarray(jax.vmap(patients.model)(patients.test_inputs))
    predictions = logits.argmax(axis=1)
    by_tree = np.asarray(jax.vmap(tree_rules.tree.__call__)(patients.test_inputs))
    probabilities = np.asarray(jax.nn.softmax(logits)).max(axis=1)
    holds = np.stack([np.asarray(rule(patients.test_inputs)) for rule in tree_rules.rules])
    return [
        Disagreement(
            int(i), int(predictions[i]), int(by_tree[i]), int(patients.test_labels[i]),
            float(probabilities[i]), tree_rules.rules[int(holds[:, i].argmax())].text,
        )
        for i in np.flatnonzero(predictions != by_tree)
    ]  # fmt: skip


def patients_to_show(patients: Patients) -> dict[str, int]:
    """Test patients: a typical prediction of each class, and the least confident one."""
    logits = np.asarray(jax.vmap(patients.model)(patients.test_inputs))
    odds = logits[:, 1] - logits[:, 0]  # of malignant
    order = np.argsort(odds)
    return {
        "a typical benign tumor": int(order[len(order) // 3]),
        "a typical malignant tumor": int(order[-len(order) // 6]),
        "the tumor most in doubt": int(np.abs(odds).argmin()),
    }


def table_of_rule_sets(rule_sets: dict[str, list[RuleSet]], splits: int) -> Table:
    """One row per kind of rules."""
    table = Table("rules", "fidelity, mean ± deviation", "worst", "accuracy", "rules or leaves")
    table.title = f"Tumors: fidelity of the rules to the network on test patients, {splits} splits"
    for kind, each in rule_sets.items():
        if kind == "a tree":
            continue
        row = summary(each)
        table.add_row(
            kind,
            f"{row['fidelity']:.3f} ± {row['fidelity_deviation']:.3f}",
            f"{row['fidelity_worst']:.3f}",
            f"{row['accuracy']:.3f}", f"{row['rules']:.1f}",
        )  # fmt: skip
    return table


def table_of_leaves(tree: rules.TreeRules) -> Table:
    """One row per leaf."""
    table = Table("rule", "coverage", "precision", title="Tumors: the tree, in the units of the data")
    for rule in tree.rules:
        precision = "" if np.isnan(rule.precision) else f"{rule.precision:.0%}"
        table.add_row(rule.text, f"{rule.coverage:.0%}", precision)
    return table


def table_of_disagreements(rows: list[Disagreement], classes: list[str]) -> Table:
    """One row per patient."""
    table = Table("patient", "network", "probability", "tree", "label", "rule of the tree")
    table.title = "Tumors: test patients for whom the predictions of tree and network differ"
    for row in rows:
        cells = (classes[row.network], f"{row.probability:.2f}", classes[row.tree], classes[row.label])
        table.add_row(str(row.patient), *cells, row.rule)
    return table


def table_of_anchors(anchors: dict[str, rules.Anchor]) -> Table:
    """One row per patient."""
    table = Table("patient", "anchor", "precision", "at least", "coverage", title="Tumors: anchors")
    for who, anchor in anchors.items():
        at_least = f"{anchor.bound:.3f}" + ("" if anchor.verified else " (not verified)")
        rule = anchor.rule
        table.add_row(who, rule.text, f"{rule.precision:.3f}", at_least, f"{rule.coverage:.0%}")
    return table


def figure_of_depth(trees: list[rules.TreeRules]) -> Figure:
    """Fidelity against the number of questions, one line per split."""
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for i, tree in enumerate(trees):
        label = "one split" if i == 0 else None
        ax.plot(range(len(tree.curve)), 100 * tree.curve, color=plot.BLUE, alpha=0.3, lw=1, label=label)
    ax.plot(100 * mean_curve(trees), "o-", color=plot.ORANGE, label="mean")
    ax.set(xlabel="questions", ylabel="fidelity on test patients, %", ylim=(None, 100))
    ax.legend()
    return titled(figure, "Tumors: fidelity of the tree by the number of questions")
