"""The figures of the experiment with attacks, and the changes that they show."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from jaxnn.plot import BLUE, ORANGE

RADII = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3)
COLORS = {"noise": "#009E73", "fgsm": ORANGE, "pgd": BLUE, "strongest": "#000000"}
MARKERS = {"noise": "s", "fgsm": "^", "pgd": "o", "strongest": "D"}
SHOWN = 5  # images in the comparison with back queries
LIMIT = 0.3  # of the colors of a change: nearly all pixels change by less
Curves = Mapping[str, Mapping[str, Sequence[float]]]  # robust accuracies by network and attack


class Change(NamedTuple):
    """Minimal adversarial changes of some images.

    Attributes:
        input: `(n, h, w, 1)`, the adversarial inputs.
        change: `(n, h, w, 1)`, these minus the images.
        prediction: `(n,)`, their predicted classes.
        size: `(n,)`, the l2 norms of the changes.
    """

    input: np.ndarray
    change: np.ndarray
    prediction: np.ndarray
    size: np.ndarray


def figure_of_curves(curves: Curves, epsilon: float, examples: int) -> Figure:
    """Accuracy against the radius, one panel per network."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey=True, layout="constrained")
    for ax, (name, by_attack) in zip(axes.T.flat, curves.items(), strict=True):
        for attack, accuracies in by_attack.items():
            ax.plot(RADII, 100 * np.array(accuracies), color=COLORS[attack], marker=MARKERS[attack],
                    markersize=4, label=attack)  # fmt: skip
        ax.set_title(name.replace("against", "trained against"))
        ax.grid(color="#E0E0E0")
        if "against" in name:
            ax.axvline(epsilon, color="#808080", linestyle=":", label="radius in training")
            ax.set_xlabel("largest change of a pixel (full range: 1)")
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy, %")
        ax.set_ylim(-3, 103)
    axes[1, 1].legend()
    figure.suptitle(
        f"Accuracy on {examples} test images under attack; 'strongest' is the strongest of three attacks"
    )
    return figure


def figure_of_changes(
    images: np.ndarray, labels: np.ndarray, changes: Mapping[str, Change], rows: Sequence[int]
) -> Figure:
    """The images on top; below, for each network, the adversarial inputs and the changes."""
    height = 1 + 2 * len(changes)
    figure, axes = plt.subplots(
        height, len(rows), figsize=(1.05 * len(rows) + 1.4, 1.22 * height + 0.8), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, row in enumerate(rows):
        show(axes[0, column], images[row], f"{labels[row]}")
        for i, each in enumerate(changes.values()):
            title = f"{each.prediction[row]}, by {each.size[row]:.1f}"
            show(axes[1 + 2 * i, column], each.input[row], title)
            shades = show_change(axes[2 + 2 * i, column], each.change[row], LIMIT)
    names = ["digit", *(text for name in changes for text in (name.replace(", ", ",\n"), "its change"))]
    for ax, name in zip(axes[:, 0], names, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.colorbar(shades, ax=axes[1:], shrink=0.4, extend="both", label="change of a pixel (full range: 1)")
    figure.suptitle(
        "The smallest change that flips the prediction of each digit: new prediction and size (l2)"
    )
    return figure


def figure_of_meaning(
    queries: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray, changes: Mapping[str, Change]
) -> Figure:
    """Changes beside the difference of two back queries of the same network, each on its own scale.

    Args:
        queries: by network, its back queries of all digits, `(10, n_in)`.
        images: `(n, h, w, 1)`.
        labels: `(n,)`.
        changes: by network, of these images.
    """
    shown = range(min(SHOWN, len(labels)))
    height = 1 + 2 * len(queries)
    figure, axes = plt.subplots(
        height, len(shown) + 1, figsize=(1.5 * len(shown) + 2.5, 1.6 * height + 0.8), squeeze=False,
        layout="constrained", gridspec_kw={"width_ratios": [0.9, *[1] * len(shown)]},
    )  # fmt: skip
    texts = (text for name in queries for text in (f"{name}:\nthe change", "the two\nback queries"))
    for ax, text in zip(axes[:, 0], ["digit", *texts], strict=True):
        ax.set_axis_off()
        ax.text(1, 0.5, text, ha="right", va="center", transform=ax.transAxes)
    for column, row in enumerate(shown, start=1):
        show(axes[0, column], images[row], f"{labels[row]}")
        for i, (name, of_digit) in enumerate(queries.items()):
            prediction, change = changes[name].prediction[row], changes[name].change[row]
            difference = (of_digit[prediction] - of_digit[labels[row]]).reshape(change.shape)
            for ax, picture in zip(axes[1 + 2 * i :, column], (change, difference), strict=False):
                show_change(ax, picture, np.abs(picture).max())
            axes[1 + 2 * i, column].set_title(f"{labels[row]} to {prediction}", fontsize=9)
    figure.suptitle(
        "The change from one digit to another, and the back query of the new one minus that of the old\n"
        "blue: more ink, red: less; each picture on its own scale"
    )
    return figure


def show(ax: Axes, image: np.ndarray, title: str) -> None:
    """Draw an image, black on white."""
    ax.imshow(image.squeeze(-1), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)


def show_change(ax: Axes, change: np.ndarray, limit: float) -> AxesImage:
    """Draw a change: blue for more ink, red for less."""
    shades = ax.imshow(np.squeeze(change), cmap="RdBu", vmin=-limit, vmax=limit)
    ax.set(xticks=[], yticks=[])
    return shades
