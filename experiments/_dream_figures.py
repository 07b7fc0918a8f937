"""The pictures of the experiment with dreams."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

import jaxnn
from jaxnn import plot

EVERY = 8  # steps between two frames
IN_A_ROW = 20  # hidden units
FRAME = 0.3  # the gray between them
STRIP = (0, 8, 16, 32, 64, 128, 256, 512)  # steps shown of a dream


class Row(NamedTuple):
    """Ten pictures of a kind, and what is known of them."""

    images: jax.Array  # (10, h, w)
    probabilities: np.ndarray  # (10, 10): for each picture the network's answer
    smoothness: np.ndarray  # (10,)
    distance: np.ndarray  # (10,)


class Deepened(NamedTuple):
    """Real digits as a layer sees more and more in them."""

    frames: np.ndarray  # (n, frames, h, w)
    answers: np.ndarray  # (n, frames): what the network says to each


def figure_of_rows(rows: Mapping[str, Row]) -> Figure:
    """A row a kind; above each picture the answer, its roughness and its distance to the nearest real one."""
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
        "Back queries, dreams and averages: what the network answers, the total variation, "
        "and how far the nearest training image is"
    )
    return figure


def figure_of_units(units: jaxnn.Dream) -> Figure:
    """All hidden units, on one scale, twenty in a row."""
    images = np.asarray(units.image)
    lines = -(-len(images) // IN_A_ROW)
    # A row is one image: two hundred Axes would take as long to lay out as the units to dream.
    framed = np.full((lines * IN_A_ROW, *(size + 2 for size in images.shape[1:])), FRAME, images.dtype)
    framed[: len(images), 1:-1, 1:-1] = images
    rows = [np.hstack(list(row)) for row in framed.reshape(lines, IN_A_ROW, *framed.shape[1:])]
    figure, axes = plt.subplots(
        lines, 1, figsize=(14, 0.68 * lines + 0.6), layout=ConstrainedLayoutEngine(h_pad=0.01, hspace=0)
    )
    plot.image_grid(np.stack(rows), axes=np.atleast_1d(axes)[:, None], limits=(0, 1), name="input")
    for line, ax in enumerate(np.atleast_1d(axes)):
        last = min(len(images), (line + 1) * IN_A_ROW) - 1
        ax.set_ylabel(f"{line * IN_A_ROW} to {last}", fontsize=8, rotation=0, ha="right", va="center")
    figure.suptitle(
        f"What each of the {len(images)} hidden units of the dense network would most like to see"
    )
    return figure


def figure_of_strips(dreams: Mapping[tuple[str, str], jaxnn.Dream], digit: int, steps: int) -> Figure:
    """A row a dream: how it appears."""
    shown = [step for step in STRIP if step <= steps]
    images = []
    for found in dreams.values():
        assert found.frames is not None, "they were asked for"
        images += [found.frames[digit, step // EVERY] for step in shown]
    titles = [f"step {step}" for step in shown] + [None] * (len(images) - len(shown))
    labels = [f"{name}\n{kind}" for name, kind in dreams]
    axes = plot.image_grid(jnp.stack(images), titles=titles, row_labels=labels, limits=(0, 1), name="input")
    figure: Figure = axes[0, 0].figure
    figure.suptitle(f"A {digit} appears")
    return figure


def figure_of_deep(deep: Mapping[str, Deepened], steps: Sequence[int]) -> Figure:
    """For each layer and real digit a row of frames, each with the network's answer."""
    images = np.concatenate([found.frames.reshape(-1, *found.frames.shape[2:]) for found in deep.values()])
    answers = np.concatenate([found.answers for found in deep.values()])
    titles = [
        f"step {step}: {answer}" if row == 0 else str(answer)
        for row, line in enumerate(answers)
        for step, answer in zip(steps, line, strict=True)
    ]
    labels = [layer for layer, found in deep.items() for _ in found.frames]
    axes = plot.image_grid(images, titles=titles, row_labels=labels, limits=(0, 1), name="input")
    figure: Figure = axes[0, 0].figure
    figure.suptitle(
        "Real digits, changed so that a layer sees more of what it sees in them; above, the CNN's answer"
    )
    return figure


def frames_of(found: jaxnn.Dream) -> np.ndarray:
    """Every other frame of ten dreams, in two rows of five, as bytes, each pixel four wide."""
    assert found.frames is not None, "they were asked for"
    every_other = np.asarray(found.frames)[:, ::-2][:, ::-1]  # the last one among them
    frames = np.pad(every_other, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=FRAME)
    count, height, width = frames.shape[1:]
    sheet = frames.reshape(2, 5, count, height, width).transpose(2, 0, 3, 1, 4)
    sheet = sheet.reshape(count, 2 * height, 5 * width)
    return np.kron(np.uint8(255 * sheet), np.ones((1, 4, 4), np.uint8))
