"""The table of primitives: it fits the installed JAX, and there is no other."""

import ast
from pathlib import Path

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import primitives as extended

import jaxnn
from jaxnn import attribution
from jaxnn._engine import primitives
from jaxnn._engine.graph import graph
from jaxnn._engine.jaxpr import walk
from jaxnn._engine.primitives import inner_jaxprs
from jaxnn._engine.relu import is_relu
from jaxnn._engine.softmax import normalization, shift_invariants

PACKAGE = Path(jaxnn.__file__).parent
NAMES = {
    value.name
    for module in (extended, lax)
    for name, value in vars(module).items()
    if name.endswith("_p") and isinstance(value, jax.extend.core.Primitive)
}
OTHER_VERSIONS = {  # or not exported by this one
    "copy_p", "expand_dims", "remat", "checkpoint", "pvary", "closed_call", "eval_jaxpr", "tap",
    "pure_callback", "io_callback", "stack", "unstack",
}  # fmt: skip
X = jnp.array([0.5, -1.0, 2.0])
W = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)


def names(function, *args):
    return {eqn.primitive.name for _, eqn in walk(jax.make_jaxpr(function)(*args).jaxpr)}


def tables(path):
    """The literals of two or more names of primitives in a file: sets, tuples, lists, and dictionaries.

    A dictionary to functions is a registry of rules, and no table; nor is a Literal of options.
    """
    tree = ast.parse(path.read_text())
    options = {
        id(inside)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal"
        for inside in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Set | ast.Tuple | ast.List):
            elements = node.elts
        elif isinstance(node, ast.Dict) and all(isinstance(value, ast.Constant) for value in node.values):
            elements = [key for key in node.keys if key is not None]
        else:
            continue
        strings = {element.value for element in elements if isinstance(element, ast.Constant)}
        if id(node) not in options and len(strings) > 1 and strings <= NAMES | OTHER_VERSIONS:
            yield f"{path.name}:{node.lineno}: {sorted(strings)}"


def test_there_is_one_table():
    assert len(NAMES) > 150
    files = [path for path in PACKAGE.rglob("*.py") if path != Path(primitives.__file__)]
    assert [table for path in files for table in tables(path)] == []
    assert len(list(tables(Path(primitives.__file__)))) > 10


def test_each_name_in_the_table_is_a_primitive():
    known = {
        name
        for table in vars(primitives).values()
        if isinstance(table, set | dict)
        and table not in (vars(primitives)["__builtins__"], primitives._HIGH)  # by class, not by primitive
        for name in table
    }
    assert len(known) > 90
    assert known - NAMES <= OTHER_VERSIONS


def with_own_jvp(function):
    own = jax.custom_jvp(function)
    own.defjvp(lambda x, t: (own(*x), t[0]))
    return own


def with_own_vjp(function):
    own = jax.custom_vjp(function)
    own.defvjp(lambda x: (own(x), None), lambda _, g: (g,))
    return own


@pytest.mark.parametrize(
    ("transform", "table"),
    [
        (jax.jit, primitives.CALLS),
        (jax.checkpoint, primitives.REMAT),
        (with_own_jvp, primitives.CUSTOM),
        (with_own_vjp, primitives.CUSTOM),
        (lambda f: lambda x: lax.cond(x[0] > 0, f, jnp.cos, x), primitives.CONTROL),
        (lambda f: lambda x: lax.while_loop(lambda x: x[0] < 0, f, x), primitives.CONTROL),
        (lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, length=2), {"scan"}),
    ],
    ids=["jit", "checkpoint", "custom_jvp", "custom_vjp", "cond", "while", "scan"],
)
def test_what_holds_a_jaxpr_is_in_the_table(transform, table):
    jaxpr = primitives.standard(jax.make_jaxpr(transform(jnp.sin))(X).jaxpr)
    (eqn,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name in table]
    inside = [
        inner for inner in inner_jaxprs(eqn) if "sin" in {e.primitive.name for _, e in walk(inner.jaxpr)}
    ]
    assert len(inside) == 1
    held = eqn.params[inside[0].parameter]
    held = held[inside[0].number] if isinstance(held, tuple | list) else held
    assert (held.jaxpr if isinstance(held, jax.extend.core.ClosedJaxpr) else held) is inside[0].jaxpr


# What the tables that there were disagreed about: one test for each difference.


def added_any(x, y):
    """The sum of two gradients, as JAX writes it."""
    return extended.add_jaxvals_p.bind(x, y)


def test_a_tap_a_copy_or_a_cast_inside_of_a_relu_leaves_it_one():
    def model(x):
        mask = jaxnn.tap((x > 0).astype(x.dtype), "mask")
        return jnp.sin(x * jnp.array(mask, copy=True))

    assert {"tap", "copy"} <= names(model, X)
    assert [is_relu(step) for step in graph(lambda x: model(jnp.sin(x)), X).steps] == [False, True, False]


def test_a_copy_and_a_sum_of_gradients_after_a_product_are_part_of_the_layer():
    def plain(x):
        return jax.nn.relu(x @ W + 1).sum()

    def copied(x):
        return jax.nn.relu(jnp.array(added_any(x @ W, jnp.ones(3)), copy=True)).sum()

    assert {"copy", "add_any"} <= names(copied, X)
    for rule in ("w_square", "z_plus", "gamma"):
        one, other = (attribution.lrp(model, X, rule=rule) for model in (plain, copied))
        np.testing.assert_allclose(other, one, rtol=1e-6)


def test_a_sum_of_gradients_is_an_addition_in_a_softmax():
    def softmax(x):
        raised = jnp.exp(added_any(x, -jnp.max(x) * jnp.ones(3)))
        return (raised / raised.sum())[0]

    steps = graph(softmax, X)
    assert any(v in shift_invariants(steps).fixed for step in steps.steps for v in step.outputs)


def test_the_sum_of_a_softmax_may_be_rounded_copied_and_tapped():
    def softmax(x):
        raised = jnp.exp(x)
        total = jaxnn.tap(lax.reduce_precision(jnp.array(raised.sum(), copy=True), 8, 23), "total")
        return raised / total

    steps = graph(softmax, X)
    (division,) = [step for step in steps.steps if step.name == "div"]
    assert normalization(steps, division).axes == (0,)


def test_a_checkpoint_inside_of_a_custom_derivative_is_elementwise():
    function = with_own_jvp(jax.checkpoint(jnp.sin))
    steps = graph(lambda x: function(x @ W).sum(), X, keep_custom=True).steps
    assert [step.kind for step in steps if step.kind != "linear"] == ["elementwise"]


def test_what_varies_over_a_mesh_changes_no_relu_and_no_layer():
    def model(x):
        return jax.nn.relu(lax.pcast(x, ("data",), to="varying") @ W)

    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    def explained(x):
        return attribution.lrp(lambda x: model(x)[0], x, rule="z_plus")

    assert "pvary" in names(jax.shard_map(model, mesh=mesh, in_specs=jax.P(), out_specs=jax.P("data")), X)
    found = jax.shard_map(explained, mesh=mesh, in_specs=jax.P(), out_specs=jax.P("data"))(X)
    expected = attribution.lrp(lambda x: jax.nn.relu(x @ W)[0], X, rule="z_plus")
    np.testing.assert_allclose(found, expected, rtol=1e-6)
