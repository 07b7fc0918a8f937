"""PyTorch's recurrent operators as scans over time: a graph that unrolls them would grow with the steps."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxnn._adapters.aten.registry import OPERATORS

Cell = Callable[[Any, tuple[Any, ...], Sequence[Any]], tuple[Any, ...]]


def _lstm_cell(projected: Any, state: tuple[Any, ...], weights: Sequence[Any]) -> tuple[Any, ...]:
    h, c = state
    gates = projected + _recurrent(h, weights)
    i, f, g, o = jnp.split(gates, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h @ weights[-1].T if len(weights) % 2 else h), c  # with a projection of the output


def _gru_cell(projected: Any, state: tuple[Any, ...], weights: Sequence[Any]) -> tuple[Any, ...]:
    (h,) = state
    r, z, n = jnp.split(projected, 3, -1)
    hr, hz, hn = jnp.split(_recurrent(h, weights), 3, -1)
    z = jax.nn.sigmoid(z + hz)
    return (jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn) * (1 - z) + z * h,)


def _plain_cell(activation: Callable[[Any], Any]) -> Cell:
    def cell(projected: Any, state: tuple[Any, ...], weights: Sequence[Any]) -> tuple[Any, ...]:
        return (activation(projected + _recurrent(state[0], weights)),)

    return cell


def _recurrent(h: Any, weights: Sequence[Any]) -> Any:
    """The state's part of the gates; weights are `(w_ih, w_hh)` or `(w_ih, w_hh, b_ih, b_hh)`, and `w_hr`."""
    product = h @ weights[1].T
    return product if len(weights) < 4 else product + weights[3]


def _run(
    cell: Cell,
    x: Any,
    states: Sequence[Any],
    parameters: Sequence[Any],
    has_biases: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Any, ...]:
    """All layers and directions: the output of the last layer, and the last states of all."""
    directions = 2 if bidirectional else 1
    per_run = len(parameters) // (layers * directions)
    y = jnp.swapaxes(x, 0, 1) if batch_first else x
    last: list[tuple[Any, ...]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            run = layer * directions + direction
            weights = parameters[run * per_run : (run + 1) * per_run]
            projected = y @ weights[0].T
            if has_biases:
                projected = projected + weights[2]

            def step(state: Any, projected: Any, weights: Any = weights) -> Any:
                state = cell(projected, state, weights)
                return state, state[0]

            initial = tuple(state[run] for state in states)
            final, steps = lax.scan(step, initial, projected, reverse=direction == 1)
            outputs.append(steps)
            last.append(final)
        y = outputs[0] if directions == 1 else jnp.concatenate(outputs, -1)
    y = jnp.swapaxes(y, 0, 1) if batch_first else y
    return (y, *(jnp.stack(parts) for parts in zip(*last, strict=True)))


def _one_state(cell: Cell) -> Callable[..., Any]:
    def run(x: Any, state: Any, *options: Any) -> tuple[Any, ...]:
        return _run(cell, x, (state,), *options)

    return run


RECURRENT: dict[str, Callable[..., Any]] = {
    "lstm.input": functools.partial(_run, _lstm_cell),
    "gru.input": _one_state(_gru_cell),
    "rnn_tanh.input": _one_state(_plain_cell(jnp.tanh)),
    "rnn_relu.input": _one_state(_plain_cell(jax.nn.relu)),
}
OPERATORS |= RECURRENT
