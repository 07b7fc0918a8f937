"""Which rules does a network follow, in words that a person can check?

Three networks are put into words. One tells malignant tumors from benign ones by 30 named measurements: trees
and a list of rules, in the units of the data, imitate it, and anchors say which few measurements suffice
for single patients. Over several splits of the patients it is measured how well each imitates the network on
patients that neither has seen, also when the rules learn from a tenth of the data. One splits a plane, and is
cut into its linear regions: the exact tree that it is. One reads digits, and a tree asks for the ink in
sixteen blocks of the image: how far can so little tell what it sees?
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import tyro
from matplotlib.figure import Figure
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_breast_cancer

import jaxnn
from experiments._digits import DataName, load_digits, train_sigmoids
from experiments._options import check_at_least
from experiments._results import make_folder, save_results
from jaxnn import plot, rules

ADAMW = optax.adamw(3e-3, weight_decay=1e-2)  # made once: `train` recognizes it by identity
ADAM = optax.adam(0.01)
DEEPEST = 8  # of the curve
SHOWN_DEPTH = 3  # of the trees that are drawn: eight leaves, which a person reads
BLOCKS = 4  # to a side of a digit
PLANE = 1.1  # the half side of the plane that is drawn
IMAGES = 4000  # that a tree of digits learns from


class Patients(NamedTuple):
    """One split of the patients, in the units of the data, and a network of those trained on."""

    model: Any  # of measurements as they are
    inputs: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray


def main(
    data: DataName = "mnist-5k",
    splits: int = 10,
    points: str = "circles",
    epochs: int = 10,
    seed: int = 0,
    output: Path = Path("results/rules"),
) -> None:
    """Train three networks, and write down what they do.

    Args:
        data: the digits; "mnist" is downloaded, or read from the folder in JAXNN_DATA.
        splits: of the patients, into those trained on and those held out.
        points: the points of the plane: "circles", "exclusive-or", "gaussians" or "spiral".
        epochs: how often each digit is seen.
        seed: of the splits, the weights, the order and the draws.
        output: the folder for pictures and numbers.
    """
    check_at_least("splits", splits, 1)
    check_at_least("epochs", epochs, 1)
    make_folder(output)
    patient_key, plane_key, digit_key = jax.random.split(jax.random.key(seed), 3)
    tumors = about_tumors(patient_key, splits)
    plane = about_plane(plane_key, points)
    digits = about_digits(digit_key, data, epochs)
    save_results(
        output,
        settings={"data": data, "splits": splits, "points": points, "epochs": epochs, "seed": seed},
        tables=[*tumors.tables, *plane.tables, *digits.tables],
        figures=tumors.figures | plane.figures | digits.figures,
        metrics=tumors.metrics | plane.metrics | digits.metrics,
    )


class Findings(NamedTuple):
    """What is shown of one network."""

    tables: list[Table]
    figures: dict[str, Figure]
    metrics: dict[str, Any]


# --- tumors


def in_units(
    network: jaxnn.Network, mean: jax.Array, deviation: jax.Array, measurements: jax.Array
) -> jax.Array:
    """The network's answer to measurements as they are; it learned from scaled ones."""
    return network((measurements - mean) / deviation)


def about_tumors(key: jax.Array, splits: int) -> Findings:
    """Each way to put a network into words, over all splits; the first split is shown."""
    bunch = load_breast_cancer()
    words: dict[str, Any] = {"names": bunch.feature_names.tolist(), "classes": bunch.target_names.tolist()}
    found: dict[str, list[Any]] = {}
    keys = jax.random.split(key, splits)
    for each in track(keys, "splits of the patients"):
        patients = split_patients(each, bunch.data, bunch.target)
        for way, answer in ways(each, patients, words).items():
            found.setdefault(way, []).append(answer)
    shown = split_patients(keys[0], bunch.data, bunch.target)
    tree = tree_of(keys[0], shown, words, max_depth=SHOWN_DEPTH)
    listed = found["a list of rules"][0]
    odd = at_odds(shown, tree)
    figures = {
        "tumors_tree": titled(
            plot.decision_tree(tree.tree, **words).figure,
            f"Tumors: a tree of {SHOWN_DEPTH} questions, faithful on {tree.fidelity:.0%} of the patients "
            "held out",
        ),
        "tumors_list": titled(
            plot.rule_list(listed).figure,
            f"Tumors: a list of rules, faithful on {listed.fidelity:.0%} of the patients held out",
        ),
        "tumors_depth": figure_of_depth(found["a tree"]),
    }
    anchors = {}
    for who, i in patients_to_show(shown).items():
        kept = rules.anchor(shown.model, shown.test_inputs[i], shown.inputs, key=keys[0], **words)
        anchors[who] = kept
        if kept.verified and np.isfinite(kept.rule.low).any() | np.isfinite(kept.rule.high).any():
            axes = plot.rule_on_data(kept.rule, shown.inputs, x=shown.test_inputs[i], names=words["names"])
            name = f"tumors_anchor_{who.replace(' ', '_')}"
            figures[name] = titled(
                axes[0].figure,
                f"{who.capitalize()}:\nwhat is enough for {words['classes'][kept.rule.answer]}",
            )
    metrics = {way: summary(all_) for way, all_ in found.items()} | {
        "depth_curve": mean_curve(found["a tree"]).tolist(),
        "tree_text": tree.text,
        "list_text": listed.text,
        "at_odds": len(odd),
        "anchors": {
            who: {"rule": a.rule.text, "precision": a.rule.precision, "bound": a.bound,
                  "coverage": a.rule.coverage, "verified": a.verified}
            for who, a in anchors.items()
        },
    }  # fmt: skip
    tables = [
        table_of_ways(found, splits),
        table_of_leaves(tree),
        table_of_odds(odd, words["classes"]),
        table_of_anchors(anchors),
    ]
    return Findings(tables, figures, {"tumors": metrics})


def split_patients(key: jax.Array, data: np.ndarray, labels: np.ndarray) -> Patients:
    """Hold a quarter of the patients out by lot, and train a network on the others."""
    split_key, init_key, order_key = jax.random.split(key, 3)
    order = np.asarray(jax.random.permutation(split_key, len(data)))
    held_out, rest = np.split(order, [len(order) // 4])
    mean, deviation = (jnp.asarray(f(data[rest], axis=0), jnp.float32) for f in (np.mean, np.std))
    raw = data.astype(np.float32)
    network = jaxnn.init(init_key, (30, 16, 2), activation="tanh", output_activation="identity")
    network, _ = jaxnn.train(
        network, (raw[rest] - mean) / deviation, jnp.asarray(labels[rest]), key=order_key, epochs=60,
        batch_size=16, optimizer=ADAMW, loss=jaxnn.losses.cross_entropy,
    )  # fmt: skip
    model = jax.tree_util.Partial(in_units, network, mean, deviation)
    return Patients(model, raw[rest], raw[held_out], labels[held_out])


def tree_of(key: jax.Array, patients: Patients, words: dict[str, Any], **options: Any) -> rules.TreeRules:
    """A tree taught by the network's answers, by default on all patients trained on."""
    inputs = options.pop("inputs", patients.inputs)
    return rules.distill_tree(
        patients.model, inputs, held_out=patients.test_inputs, held_out_labels=patients.test_labels,
        key=key, **words, **options,
    )  # fmt: skip


def ways(key: jax.Array, patients: Patients, words: dict[str, Any]) -> dict[str, Any]:
    """The rules of one split, by what they are."""
    few = patients.inputs[: len(patients.inputs) // 10]
    known: dict[str, Any] = {
        "held_out": patients.test_inputs,
        "held_out_labels": patients.test_labels,
        "key": key,
    } | words
    return {
        "a tree": tree_of(key, patients, words, max_depth=DEEPEST),
        "a tree of 5 questions": tree_of(key, patients, words),
        "the same, no samples drawn": tree_of(key, patients, words, samples=0),
        "the same, a tenth of the data": tree_of(key, patients, words, inputs=few),
        "trepan, 5 questions": rules.trepan(patients.model, patients.inputs, **known),
        "trepan, a tenth of the data": rules.trepan(patients.model, few, **known),
        "a list of rules": rules.rule_list(patients.model, patients.inputs, **known),
    }


def summary(found: list[Any]) -> dict[str, float]:
    """Mean and spread over the splits."""
    fidelity, accuracy = (
        np.array([getattr(each, what) for each in found]) for what in ("fidelity", "accuracy")
    )
    return {
        "fidelity": float(fidelity.mean()), "fidelity_deviation": float(fidelity.std()),
        "fidelity_worst": float(fidelity.min()), "accuracy": float(accuracy.mean()),
        "rules": float(np.mean([len(each.rules) for each in found])),
    }  # fmt: skip


def mean_curve(trees: list[rules.TreeRules]) -> np.ndarray:
    """For each split the fidelity after 0, 1, ... questions; a tree that ends early stays as it is."""
    return np.stack([np.pad(t.curve, (0, DEEPEST + 1 - len(t.curve)), mode="edge") for t in trees]).mean(
        axis=0
    )


class Odd(NamedTuple):
    """A patient held out to whom tree and network answer differently."""

    patient: int
    network: int
    tree: int
    truth: int
    sure: float
    leaf: str


def at_odds(patients: Patients, found: rules.TreeRules) -> list[Odd]:
    """Where the tree and the network differ."""
    logits = np.asarray(jax.vmap(patients.model)(patients.test_inputs))
    answers, given = logits.argmax(axis=1), np.asarray(jax.vmap(found.tree.__call__)(patients.test_inputs))
    sure = np.asarray(jax.nn.softmax(logits)).max(axis=1)
    holding = np.stack([np.asarray(rule(patients.test_inputs)) for rule in found.rules])
    return [
        Odd(int(i), int(answers[i]), int(given[i]), int(patients.test_labels[i]), float(sure[i]),
            found.rules[int(holding[:, i].argmax())].text)
        for i in np.flatnonzero(answers != given)
    ]  # fmt: skip


def patients_to_show(patients: Patients) -> dict[str, int]:
    """Patients held out: the surest answer of each kind, and the least sure one."""
    logits = np.asarray(jax.vmap(patients.model)(patients.test_inputs))
    odds = logits[:, 0] - logits[:, 1]
    middle = np.argsort(odds)
    return {
        "a typical benign tumor": int(middle[len(middle) // 3]),
        "a typical malignant tumor": int(middle[-len(middle) // 6]),
        "the tumor most in doubt": int(np.abs(odds).argmin()),
    }


def table_of_ways(found: dict[str, list[Any]], splits: int) -> Table:
    """A row a way."""
    table = Table("rules", "fidelity, mean ± spread", "worst", "accuracy", "rules or leaves")
    table.title = f"Tumors: how faithful the rules are to the network, on patients held out, {splits} splits"
    for way, all_ in found.items():
        if way == "a tree":
            continue
        each = summary(all_)
        table.add_row(
            way,
            f"{each['fidelity']:.3f} ± {each['fidelity_deviation']:.3f}",
            f"{each['fidelity_worst']:.3f}",
            f"{each['accuracy']:.3f}", f"{each['rules']:.1f}",
        )  # fmt: skip
    return table


def table_of_leaves(tree: rules.TreeRules) -> Table:
    """A row a leaf."""
    table = Table("rule", "decides", "of those right", title="Tumors: the tree, in the units of the data")
    for rule in tree.rules:
        right = "" if np.isnan(rule.precision) else f"{rule.precision:.0%}"
        table.add_row(rule.text, f"{rule.coverage:.0%}", right)
    return table


def table_of_odds(odd: list[Odd], classes: list[str]) -> Table:
    """A row a patient."""
    table = Table("patient", "network", "its share", "tree", "truth", "by the rule")
    table.title = "Tumors: patients held out on whom tree and network differ"
    for each in odd:
        answers = (classes[each.network], f"{each.sure:.2f}", classes[each.tree], classes[each.truth])
        table.add_row(str(each.patient), *answers, each.leaf)
    return table


def table_of_anchors(anchors: dict[str, rules.Anchor]) -> Table:
    """A row a patient."""
    table = Table("patient", "what is enough", "precision", "at least", "coverage", title="Tumors: anchors")
    for who, found in anchors.items():
        at_least = f"{found.bound:.3f}" + ("" if found.verified else " (not reached)")
        table.add_row(
            who, found.rule.text, f"{found.rule.precision:.3f}", at_least, f"{found.rule.coverage:.0%}"
        )
    return table


def figure_of_depth(trees: list[rules.TreeRules]) -> Figure:
    """Fidelity against the number of questions, a line a split."""
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for i, tree in enumerate(trees):
        label = "a split" if i == 0 else None
        ax.plot(range(len(tree.curve)), 100 * tree.curve, color=plot.BLUE, alpha=0.3, lw=1, label=label)
    ax.plot(100 * mean_curve(trees), "o-", color=plot.ORANGE, label="mean")
    ax.set(xlabel="questions until the answer", ylabel="fidelity on patients held out, %", ylim=(None, 100))
    ax.legend()
    return titled(figure, "Tumors: how many questions does it take to be faithful?")


# --- a plane


def about_plane(key: jax.Array, name: Any) -> Findings:
    """The linear regions of a relu network of two inputs, and how exact its tree is."""
    point_key, init_key, order_key, test_key = jax.random.split(key, 4)
    points = jaxnn.datasets.point_set(name, key=point_key, n=500)
    figures, found = {}, {}
    for sizes in ((2, 8, 2), (2, 10, 10, 2)):
        network = jaxnn.init(
            init_key, sizes, activation="relu", output_activation="identity",
            kernel_init=jax.nn.initializers.he_normal(), bias_init=jax.nn.initializers.normal(0.1),
        )  # fmt: skip
        network, _ = jaxnn.train(
            network, points.inputs, points.labels, key=order_key, epochs=100, batch_size=10,
            optimizer=ADAM, loss=jaxnn.losses.cross_entropy,
        )  # fmt: skip
        regions = rules.linear_regions(network, bounds=(-PLANE, PLANE))
        x = jax.random.uniform(test_key, (100_000, 2), minval=-PLANE, maxval=PLANE)
        given, answers = jax.jit(jax.vmap(regions.tree.__call__))(x), jaxnn.query(network, x)
        shown = "-".join(map(str, sizes))
        right = jnp.argmax(jaxnn.query(network, points.inputs), axis=-1) == points.labels
        found[shown] = {
            "regions": len(regions.polygons),
            "accuracy": float(jnp.mean(right)),
            "largest_difference": float(jnp.max(jnp.abs(given - answers))),
            "same_class": float(jnp.mean(given.argmax(axis=-1) == answers.argmax(axis=-1))),
        }
        title = f"{name}, {shown}: {len(regions.polygons)} regions, on each of which the network is affine"
        figures[f"plane_{shown}"] = titled(figure_of_plane(network, regions, points), title)
    table = Table("network", "right", "regions", "largest difference of the tree", "same class")
    table.title = f"The plane ({name}): the exact tree, asked at 100,000 points"
    for shown, each in found.items():
        table.add_row(
            shown, f"{each['accuracy']:.1%}", str(each["regions"]), f"{each['largest_difference']:.1e}",
            f"{each['same_class']:.3%}",
        )  # fmt: skip
    return Findings([table], figures, {"plane": found})


def figure_of_plane(network: jaxnn.Network, regions: rules.LinearRegions, points: Any) -> Figure:
    """The difference of the two outputs over the plane, and the regions as they are."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4.8), layout="constrained")
    side = np.linspace(-PLANE, PLANE, 301)
    outputs = jaxnn.query(network, jnp.stack(jnp.meshgrid(side, side), axis=-1))
    lead = outputs[..., 1] - outputs[..., 0]
    high = float(jnp.quantile(jnp.abs(lead), 0.95))
    plot.decision_map(
        side, side, lead, points=points.inputs[:150], labels=points.labels[:150], limits=(-high, high),
        name="class 1 ahead of class 0 by", ax=left,
    )  # fmt: skip
    left.set_title("what it says", fontsize=10)
    middles = np.stack([polygon.mean(axis=0) for polygon in regions.polygons])
    ahead = np.asarray(jaxnn.query(network, middles)) @ np.array([-1.0, 1.0])
    plot.regions(regions.polygons, values=ahead, limits=(-high, high), ax=right)
    right.set(xlim=(-PLANE, PLANE), ylim=(-PLANE, PLANE), xlabel="$x_1$", ylabel="$x_2$")
    right.set_box_aspect(1)
    right.set_title("the pieces it is made of, each by its middle", fontsize=10)
    return figure


# --- digits


def ink(image: jax.Array) -> jax.Array:
    """The mean of each of 16 blocks of one square image, in [0.01, 1]."""
    block = math.isqrt(image.size) // BLOCKS
    return image.reshape(BLOCKS, block, BLOCKS, block).mean(axis=(1, 3)).ravel()


def about_digits(key: jax.Array, data: DataName, epochs: int) -> Findings:
    """Trees over the ink in blocks of the image."""
    digits = load_digits(data)
    train_key, tree_key = jax.random.split(key)
    network = train_sigmoids(train_key, digits, hidden=(100,), epochs=epochs)
    side = digits.image_shape[0]
    names = [f"row {i + 1}, column {j + 1}" for i in range(BLOCKS) for j in range(BLOCKS)]
    known: dict[str, Any] = {
        "held_out": digits.test_inputs, "held_out_labels": digits.test_labels, "key": tree_key,
        "features": ink, "names": names, "classes": [str(k) for k in range(10)],
    }  # fmt: skip
    inputs = digits.inputs[:IMAGES]
    found = {
        "4 questions": rules.distill_tree(network, inputs, max_depth=4, **known),
        "8 questions": rules.distill_tree(network, inputs, max_depth=8, **known),
        "8 questions, trepan": rules.trepan(network, inputs, max_depth=8, max_leaves=100, **known),
    }
    table = Table("tree", "fidelity", "accuracy", "leaves", title=f"Digits ({data}): trees over 16 blocks")
    for what, each in found.items():
        table.add_row(what, f"{each.fidelity:.3f}", f"{each.accuracy:.3f}", str(len(each.rules)))
    small, large = found["4 questions"], found["8 questions"]
    title = (
        f"Digits: four questions about the ink in 16 blocks, faithful on {small.fidelity:.0%} of the images "
        "held out"
    )
    axes = plot.decision_tree(small.tree, names=names, classes=[f"{k}:" for k in range(10)])
    figures = {
        "digits_tree": titled(axes.figure, title),
        "digits_rules": figure_of_rules(network, large, digits.test_inputs, side),
    }
    metrics = {
        what: {"fidelity": each.fidelity, "accuracy": each.accuracy, "curve": each.curve.tolist()}
        for what, each in found.items()
    }
    return Findings([table], figures, {"digits": metrics})


def figure_of_rules(network: jaxnn.Network, found: rules.TreeRules, inputs: jax.Array, side: int) -> Figure:
    """For each digit the rule that decides most: how much ink it wants at least and at most, by block."""
    answers = np.asarray(jaxnn.query(network, inputs)).argmax(axis=1)
    shown = {}
    for rule in sorted(found.rules, key=lambda rule: rule.coverage * np.nan_to_num(rule.precision)):
        shown[rule.answer] = rule
    used = sorted(shown)
    low, high = (np.stack([getattr(shown[k], end) for k in used]) for end in ("low", "high"))
    blocks = (-1, BLOCKS, BLOCKS)
    means = np.stack([np.asarray(inputs)[answers == k].mean(axis=0) for k in used]).reshape(-1, side, side)
    figure, cells = plt.subplots(
        3, len(used), figsize=(1.15 * len(used) + 1.6, 4.6), squeeze=False, layout="constrained"
    )
    titles = [f"{k}: {shown[k].coverage:.0%}, {shown[k].precision:.0%}" for k in used]
    quiet: dict[str, Any] = {"limits": (0, 1), "colorbar": False}
    plot.image_grid(means, titles=titles, row_labels=["seen as it"], axes=cells[:1], **quiet)
    wanted = np.where(np.isfinite(low), low, 0.0).reshape(blocks)
    allowed = np.where(np.isfinite(high), high, 1.0).reshape(blocks)
    plot.image_grid(wanted, row_labels=["ink at least"], axes=cells[1:2], **quiet)
    plot.image_grid(allowed, row_labels=["ink at most"], axes=cells[2:], **quiet)
    figure.colorbar(cells[0, 0].images[0], ax=cells, label="ink, the mean of a block or pixel", shrink=0.8)
    return titled(figure, "Digits: for each the rule that decides most (how many, how many of them rightly)")


def titled(figure: Any, title: str) -> Figure:
    """A figure with its title."""
    figure.suptitle(title, fontsize=11)
    return figure


if __name__ == "__main__":
    tyro.cli(main)
