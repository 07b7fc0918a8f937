"""PyTorch's operators in JAX, against what PyTorch returned; and the evaluation of a graph of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnn._adapters.torch_program import TABLE, Program, Step, Value
from jaxnn._arrays import as_numpy
from tests.helpers.aten_cases import CASES, RECORDED, by_torch, split


def recorded(name):
    with np.load(RECORDED) as file:
        keys = [key for key in file if key.rpartition("/")[0] == name]
        return [file[key] for key in sorted(keys)]


def as_argument(value):
    """As in a program: lists are tuples."""
    if isinstance(value, list):
        return tuple(map(as_argument, value))
    return jnp.asarray(as_numpy("value", value)) if isinstance(value, np.ndarray) else value


def by_us(name):
    operator, arguments, keywords = split(CASES[name])
    result = TABLE[operator](*map(as_argument, arguments), **keywords)
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("name", CASES)
def test_operators(name):
    found, expected = by_us(name), recorded(name)
    assert len(expected) >= len(found) > 0
    for ours, theirs in zip(found, expected, strict=False):
        assert jnp.issubdtype(ours.dtype, jnp.floating) == (theirs.dtype.kind == "f")
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def test_every_operator_has_a_case():
    alike = {"tap", "view", "_unsafe_view", "reshape", "empty", "baddbmm", "stack", "unbind", "getitem"}
    with_case = {split(case)[0].partition(".")[0] for case in CASES.values()}
    families = ("reflection_pad", "replication_pad", "upsample_", "_adaptive_avg_pool", "adaptive_avg_pool1d")
    missing = {name.partition(".")[0] for name in TABLE} - with_case - alike
    assert {name for name in missing if not name.startswith(families)} <= {"_to_copy", "_safe_softmax"}


def test_records_are_what_pytorch_returns():
    pytest.importorskip("torch")
    for name, case in CASES.items():
        for now, then in zip(by_torch(case), recorded(name), strict=True):
            np.testing.assert_allclose(now, then, rtol=1e-5, atol=1e-6, err_msg=name)


STEPS = (
    Step("mm.default", (Value(2), Value(0)), (), (1, 3), "float32", "layers/0"),
    Step("add.Tensor", (Value(3), Value(1)), (("alpha", 2),), (1, 3), "float32", ""),
)
PROGRAM = Program(
    (("params", "w"), ("buffers", "b"), ("inputs", 0)),
    (((1, 2), "float32"),),
    STEPS,
    jax.tree.structure(0),
    (Value(4),),
)


def run(program, x):
    arrays = {
        "params": {"w": jnp.ones((2, 3))},
        "buffers": {"b": jnp.arange(3.0)},
        "inputs": program.cast([x], 1),
    }
    return program.run(arrays, batched=True)


def test_a_program_is_evaluated_and_compared_by_its_text():
    np.testing.assert_allclose(run(PROGRAM, jnp.array([[1.0, 2.0]])), [[3.0, 5.0, 7.0]])
    other = dataclasses.replace(PROGRAM, steps=(STEPS[0], STEPS[1]._replace(keywords=(("alpha", 2.0),))))
    assert dataclasses.replace(PROGRAM) == PROGRAM
    assert hash(PROGRAM) == hash(dataclasses.replace(PROGRAM))
    assert other != PROGRAM


def test_inputs_are_cast_or_refused():
    assert run(PROGRAM, jnp.array([[1, 2]])).dtype == jnp.float32
    with pytest.raises(
        ValueError, match=r"`x` must have the shapes of `example`, \[\(2,\)\], .*; got \[\(3,\)\]"
    ):
        run(PROGRAM, jnp.ones((1, 3)))
    tokens = dataclasses.replace(PROGRAM, inputs=(((1, 2), "int64"),))
    with pytest.raises(TypeError, match="`x` must hold int64 where `example` does; got float32"):
        run(tokens, jnp.ones((1, 2), jnp.float32))


def test_a_wrong_shape_is_reported():
    wrong = dataclasses.replace(PROGRAM, steps=(STEPS[0]._replace(shape=(1, 4)),), output=(Value(3),))
    with pytest.raises(RuntimeError, match=r"`mm.default` gives shape \(1, 3\), and \(1, 4\) in PyTorch"):
        run(wrong, jnp.ones((1, 2)))
