"""The figures of the experiment with dreams."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

import jaxnn
from experiments._common.figures import titled
from jaxnn import plot

EVERY = 8  # steps between two frames
UNITS_PER_ROW = 20
FRAME = 0.3  # the gray level between them
STRIP = (0, 8, 16, 32, 64, 128, 256, 512)  # the steps shown of a dream


class Row(NamedTuple):
    """Ten pictures of one kind, and their measures."""

    images: jax.Array  # (10, h, w)
    probabilities: np.ndarray  # (10, 10): for each picture the probabilities of all classes
    smoothness: np.ndarray  # (10,)
    distance: np.ndarray  # (10,)


class Deepened(NamedTuple):
    """Real digits while the activity of a layer is increased."""

    frames: np.ndarray  # (n, frames, h, w)
    predictions: np.ndarray  # (n, frames)


def figure_of_rows(rows: Mapping[str, Row]) -> Figure:
    """One row per kind; above each picture its prediction, roughness, and distance to the nearest digit."""
    titles = [
        f"{d} → {p.argmax()} {'✓' if p.argmax() == d else '✗'} {p.max():.2f}\nrough {s:.2f}, far {far:.1f}"
        for row in rows.values()
        for d, (p, s, far) in enumerate(zip(row.probabilities, row.smoothness, row.distance, strict=True))
    ]
    figure, axes = plt.subplots(len(rows), 10, figsize=(14.5, 1.72 * len(rows) + 0.5), layout="constrained")
    images = jnp.concatenate([row.images for row in rows.values()])
    plot.image_grid(images, axes=axes, titles=titles, limits=(0, 1), name="input")
    for ax, name in zip(axes[:, 0], rows, strict=True):
        ax.set_ylabel(name.replace(", ", "\n"), fontsize=9)
    for ax in axes.ravel().tolist():
        ax.title.set_fontsize(8)
    figure.suptitle(
        "Back queries, dreams and mean images: the prediction, the total variation, "
        "and the distance to the nearest training image"
    )
    return figure


def figure_of_units(units: jaxnn.Dream) -> Figure:
    """All hidden units on one scale, twenty per row."""
    images = np.asarray(units.image)
    lines = -(-len(images) // UNITS_PER_ROW)
    # Each row is one image: the layout of two hundred Axes would take as long as the dreams.
    framed = np.full((lines * UNITS_PER_ROW, *(size + 2 for size in images.shape[1:])), FRAME, images.dtype)
    framed[: len(images), 1:-1, 1:-1] = images
    rows = [np.hstack(list(row)) for row in framed.reshape(lines, UNITS_PER_ROW, *framed.shape[1:])]
    figure, axes = plt.subplots(
        lines, 1, figsize=(14, 0.68 * lines + 0.6), layout=ConstrainedLayoutEngine(h_pad=0.01, hspace=0)
    )
    plot.image_grid(np.stack(rows), axes=np.atleast_1d(axes)[:, None], limits=(0, 1), name="input")
    for line, ax in enumerate(np.atleast_1d(axes)):
        last = min(len(images), (line + 1) * UNITS_PER_ROW) - 1
        ax.set_ylabel(f"{line * UNITS_PER_ROW} to {last}", fontsize=8, rotation=0, ha="right", va="center")
    figure.suptitle(f"The dream of each of the {len(images)} hidden units of the dense network")
    return figure


def figure_of_strips(dreams: Mapping[tuple[str, str], jaxnn.Dream], digit: int, steps: int) -> Figure:
    """One row per dream: its frames from the first step to the last."""
    shown = [step for step in STRIP if step <= steps]
    images = []
    for dream in dreams.values():
        assert dream.frames is not None, "they were requested"
        images += [dream.frames[digit, step // EVERY] for step in shown]
    titles = [f"step {step}" for step in shown] + [None] * (len(images) - len(shown))
    labels = [f"{name}\n{kind}" for name, kind in dreams]
    axes = plot.image_grid(jnp.stack(images), titles=titles, row_labels=labels, limits=(0, 1), name="input")
    return titled(axes, f"Dreams of a {digit}, step by step")


def figure_of_deep(deep: Mapping[str, Deepened], steps: Sequence[int]) -> Figure:
    """For each layer and real digit one row of frames, each with its prediction."""
    images = np.concatenate([each.frames.reshape(-1, *each.frames.shape[2:]) for each in deep.values()])
    predictions = np.concatenate([each.predictions for each in deep.values()])
    titles = [
        f"step {step}: {prediction}" if row == 0 else str(prediction)
        for row, line in enumerate(predictions)
        for step, prediction in zip(steps, line, strict=True)
    ]
    labels = [layer for layer, each in deep.items() for _ in each.frames]
    axes = plot.image_grid(images, titles=titles, row_labels=labels, limits=(0, 1), name="input")
    return titled(axes, "DeepDream: real digits, changed to increase a layer's activity, and the predictions")


def frames_of(dreams: jaxnn.Dream) -> np.ndarray:
    """Every other frame of ten dreams, in two rows of five, as bytes, each pixel four wide."""
    assert dreams.frames is not None, "they were requested"
    every_other = np.asarray(dreams.frames)[:, ::-2][:, ::-1]  # includes the last one
    frames = np.pad(every_other, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=FRAME)
    count, height, width = frames.shape[1:]
    sheet = frames.reshape(2, 5, count, height, width).transpose(2, 0, 3, 1, 4)
    sheet = sheet.reshape(count, 2 * height, 5 * width)
    return np.kron(np.uint8(255 * sheet), np.ones((1, 4, 4), np.uint8))
