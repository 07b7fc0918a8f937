"""The book's three-layer network in plain NumPy, equation by equation: an oracle, and a peer to time.

No bias; weights `(n_in, n_out)`; every function is of one example or of rows of examples.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def logit(p):
    return np.log(p / (1 - p))


def query(kernels, x):
    """Forwards: h = sigmoid(x W_in), o = sigmoid(h W_out)."""
    for kernel in kernels:
        x = sigmoid(x @ kernel)
    return x


def rescale(v):
    """To 0.01 ... 0.99 over the whole vector."""
    v = v - v.min()
    return v / v.max() * 0.98 + 0.01


def backquery(kernels, y):
    """Backwards: o_in = logit(y); h = rescale(W_out o_in); h_in = logit(h); x = rescale(W_in h_in)."""
    for kernel in reversed(kernels):
        y = rescale(kernel @ logit(y))
    return y


def train_step(kernels, x, target, rate):
    """One gradient step, in place, on the mean over the rows of half the squared error.

    With y = o (1 - o) (o - t) and d = h (1 - h) (y W_out^T): W_out -= rate h^T y, W_in -= rate x^T d.
    """
    w_in, w_out = kernels
    hidden = sigmoid(x @ w_in)
    output = sigmoid(hidden @ w_out)
    delta_out = (output - target) * output * (1 - output) / len(x)
    delta_hidden = (delta_out @ w_out.T) * hidden * (1 - hidden)
    w_out -= rate * (hidden.T @ delta_out)
    w_in -= rate * (x.T @ delta_hidden)
