"""What training images and a second network say of pictures of the ten digits."""

import numpy as np
from jax.typing import ArrayLike

from experiments._common.digits import Digits

DIGITS = np.arange(10)
N_NEAREST = 5


def nearest(pictures: ArrayLike, digits: Digits) -> tuple[np.ndarray, np.ndarray]:
    """The most frequent label of the five nearest training images, and the distance to the first, `(N,)`."""
    inputs = np.asarray(digits.inputs)
    flat = np.asarray(pictures).reshape(-1, inputs.shape[1])
    squares = np.sum(inputs**2, axis=1) - 2 * flat @ inputs.T  # less the square of the picture
    order = np.argpartition(squares, N_NEAREST)[:, :N_NEAREST]
    labels = [np.bincount(digits.labels[row], minlength=10).argmax() for row in order]
    return np.array(labels), np.linalg.norm(flat - inputs[squares.argmin(axis=1)], axis=1)
