"""The engine: taps are read and replaced wherever they stand, and rules take the place of operations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st
from jax import lax

import jaxnn
from jaxnn import _rewrite

X = jnp.array([0.3, -0.7, 1.1], jnp.float32)


def tapped(x):
    return jaxnn.tap(jnp.sin(x), "h") * x


def ten_times(x):
    return jnp.sin(x) * 10 * x


def times_ten(h):
    return h * 10


def with_false_jvp(step):
    @jax.custom_jvp
    def function(x):
        return step(x)

    function.defjvp(lambda primals, tangents: (step(*primals), 7 * tangents[0]))
    return function


def with_false_vjp(step):
    @jax.custom_vjp
    def function(x):
        return step(x)

    function.defvjp(lambda x: (step(x), None), lambda _, cotangent: (7 * cotangent,))
    return function


FORMS = {
    "plain": lambda step: step,
    "jit": jax.jit,
    "jit in jit": lambda step: jax.jit(lambda x: jax.jit(step)(x) + 1),
    "custom_jvp": with_false_jvp,
    "custom_vjp": with_false_vjp,
    "remat": jax.checkpoint,
    "remat with a policy": lambda step: jax.checkpoint(step, policy=jax.checkpoint_policies.dots_saveable),
    "vmap": lambda step: jax.vmap(step),
    "grad": lambda step: jax.grad(lambda x: step(x).sum()),
    "scan": lambda step: lambda x: lax.scan(lambda c, r: (step(c + r), c), x, jnp.ones((4, 3), x.dtype))[0],
    "reversed scan": lambda step: (
        lambda x: lax.scan(lambda c, r: (c + 1, step(c * r)), x, jnp.arange(12.0).reshape(4, 3), reverse=True)
    ),
    "cond": lambda step: lambda x: lax.cond(x[0] > 0, step, jnp.cos, x),
    "switch": lambda step: lambda x: lax.switch(jnp.where(x[0] > 0, 2, 1), [jnp.cos, jnp.tan, step], x),
    "while": lambda step: (
        lambda x: lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, step(c[1])), (0, x))[1]
    ),
    "scan in remat in jit": lambda step: jax.jit(
        jax.checkpoint(lambda x: lax.scan(lambda c, _: (jax.jit(step)(c), None), x, length=3)[0])
    ),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
READ = {name: form for name, form in FORMS.items() if name not in ("cond", "switch", "while")}
every_read_form = pytest.mark.parametrize("form", READ.values(), ids=READ.keys())


def assert_equal(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def slope(model):
    return jax.grad(lambda x: sum(leaf.sum() for leaf in jax.tree.leaves(model(x))))


def changed(form):
    """The function as it is with ten times the sine."""
    if form is FORMS["grad"]:  # taken by the model itself: the cosine stands there on its own
        return lambda x: 10 * jnp.sin(x) + x * jnp.cos(x)
    return form(ten_times)


@jax.jit
def ask(model, x):
    return model(x)


@pytest.mark.long("all but the first")
@every_form
def test_capture_changes_neither_the_answer_nor_its_derivative(form):
    model = form(tapped)
    y, _ = jaxnn.capture(model, X)
    assert_equal(y, model(X))
    if form is not FORMS["while"]:  # JAX has no reverse derivative of it
        assert_equal(slope(lambda x: jaxnn.capture(model, x)[0])(X), slope(model)(X))


@every_read_form
def test_capture_reads_what_stands_there(form):
    _, values = jaxnn.capture(form(tapped), X)
    assert list(values) == ["h"]
    seen = []  # by a callback, in the order of the computation

    def shown(x):
        h = jnp.sin(x)
        jax.debug.callback(lambda h: seen.append(np.asarray(h)), h, ordered=False)
        return h * x

    if form in (FORMS["vmap"], FORMS["grad"], FORMS["custom_jvp"], FORMS["custom_vjp"]):
        assert_equal(values["h"], jnp.sin(X))
        return
    jax.block_until_ready(jax.jit(form(shown))(X))
    jax.effects_barrier()
    seen = seen[::-1] if form is FORMS["reversed scan"] else seen
    assert_equal(values["h"].reshape(-1, 3), np.stack(seen))


@every_form
def test_a_replacement_is_seen_by_all_that_follows(form):
    model = jaxnn.intervene(form(tapped), {"h": times_ten})
    assert_equal(model(X), changed(form)(X))
    assert_equal(ask(model, X), changed(form)(X))


@pytest.mark.parametrize("form", [FORMS[name] for name in FORMS if name != "while"])
def test_the_gradient_follows_the_replacement(form):
    model = jaxnn.intervene(form(tapped), {"h": times_ten})
    if form in (FORMS["custom_jvp"], FORMS["custom_vjp"]):  # their derivative was another function's
        assert_equal(slope(model)(X), slope(ten_times)(X))
    else:
        assert_equal(slope(model)(X), slope(changed(form))(X))


@every_form
def test_a_rule_is_applied_wherever_the_operation_stands(form):
    rewritten = jaxnn.rewrite(form(tapped), {"sin": lambda operation, x: 10 * operation(x)})
    assert_equal(rewritten(X), changed(form)(X))


@pytest.mark.long("all but the first")
@every_form
def test_the_engine_works_under_vmap(form):
    batch = jnp.stack([X, -X, 2 * X])
    model = form(tapped)
    y, values = jax.vmap(lambda x: jaxnn.capture(model, x))(batch)
    assert_equal(y, jax.vmap(model)(batch))
    for name, value in values.items():
        assert_equal(value, jnp.stack([jaxnn.capture(model, x)[1][name] for x in batch]))
    replaced = jax.vmap(jaxnn.intervene(model, {"h": times_ten}))(batch)
    assert_equal(replaced, jax.vmap(changed(form))(batch))


def test_values_in_a_scan_come_with_all_steps():
    _, values = jaxnn.capture(FORMS["reversed scan"](tapped), X)
    steps = X[None] + jnp.array([3.0, 2.0, 1.0, 0.0])[:, None]
    assert_equal(values["h"], jnp.sin(steps * jnp.arange(12.0).reshape(4, 3)))


@pytest.mark.parametrize("form", ["cond", "switch", "while"])
def test_what_may_never_come_to_be_is_left_out_but_can_be_replaced(form):
    model = FORMS[form](tapped)
    assert jaxnn.capture(model, X)[1] == {}
    assert _rewrite.names(model, X) == ()
    zeroed = jaxnn.intervene(model, {"h": jnp.zeros(3)})(X)
    assert_equal(zeroed, jnp.zeros(3))


@pytest.mark.long
@given(st.lists(st.floats(-5, 5, width=32), min_size=6, max_size=6), st.integers(0, 2**31 - 1))
def test_a_network_with_its_own_values_put_back_answers_the_same(x, seed):
    network = jaxnn.init(jax.random.key(seed), (6, 5, 4, 3), activation="tanh")
    x = jnp.asarray(x, jnp.float32)
    y, values = jaxnn.capture(network, x)
    assert_equal(y, jax.jit(jaxnn.query)(network, x))
    assert_equal(ask(jaxnn.intervene(network, values), x), y)
    for name, value in values.items():
        assert_equal(ask(jaxnn.intervene(network, {name: value}), x), y)


def test_a_name_used_again_is_numbered_in_the_order_of_computation():
    def model(x):
        for _ in range(3):
            x = jax.jit(lambda x: jaxnn.tap(x + 1, "layer"))(x)
        return jaxnn.tap(x, "end")

    _, values = jaxnn.capture(model, 0.0)
    assert {name: float(v) for name, v in values.items()} == {
        "layer@1": 1.0,
        "layer@2": 2.0,
        "layer@3": 3.0,
        "end": 3.0,
    }
    assert float(jaxnn.intervene(model, {"layer@2": jnp.float32(10.0)})(0.0)) == 11.0
    with pytest.raises(ValueError, match=r"'layer@1', 'layer@2', 'layer@3', 'end'\); got 'layer'"):
        jaxnn.intervene(model, {"layer": times_ten})(0.0)


def test_names_that_do_not_exist_raise_and_list_those_that_do():
    network = jaxnn.init(jax.random.key(0), (3, 2, 1))
    model = jaxnn.intervene(network, {"hiden_0": times_ten})
    expected = (
        r"`replacements` must name .* \('hidden_0_in', 'hidden_0', 'output_in', 'output'\); got 'hiden_0'"
    )
    with pytest.raises(ValueError, match=expected):
        ask(model, X)
    with pytest.raises(ValueError, match=expected):
        jax.vmap(model)(X[None])
    with pytest.raises(ValueError, match="none: name them with jaxnn.tap"):
        jaxnn.intervene(jnp.sin, {"h": times_ten})(X)


def test_a_name_that_looks_like_a_number_of_another_is_refused():
    def model(x):
        return jaxnn.tap(jaxnn.tap(jaxnn.tap(x, "a"), "a"), "a@1")

    with pytest.raises(ValueError, match="two intermediates 'a@1'"):
        jaxnn.capture(model, 1.0)


def test_interventions_nest():
    once = jaxnn.intervene(tapped, {"h": times_ten})
    twice = jaxnn.intervene(once, {"h": lambda h: h + 1})
    assert_equal(twice(X), (jnp.sin(X) * 10 + 1) * X)
    _, values = jaxnn.capture(twice, X)
    assert_equal(values["h"], jnp.sin(X) * 10 + 1)


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (jnp.ones(4), r"`replacements\['h'\]` must have shape \(3,\); got \(4,\)"),
        (lambda h: h[:2], r"`replacements\['h'\]\(value\)` must have shape \(3,\); got \(2,\)"),
        (jnp.ones(3, jnp.complex64), "must have dtype float32; got complex64"),
    ],
)
def test_a_replacement_of_another_kind_is_refused(new, message):
    with pytest.raises(ValueError, match=message):
        jaxnn.intervene(tapped, {"h": new})(X)


def test_what_is_no_replacement_is_refused():
    with pytest.raises(TypeError, match=r"`replacements` must be a dictionary by name; got \[1\]"):
        jaxnn.intervene(tapped, [1])
    with pytest.raises(TypeError, match=r"`replacements\['h'\]` must be an array of numbers; got str 'x'"):
        jaxnn.intervene(tapped, {"h": "x"})
    with pytest.raises(
        TypeError, match=r"`replacements\['h'\]\(value\)` must be an array of numbers; got NoneT"
    ):
        jaxnn.intervene(tapped, {"h": lambda h: None})(X)
    for call in (jaxnn.capture, jaxnn.intervene):
        with pytest.raises(TypeError, match="`model` must be callable"):
            call(3, {})


def test_a_replacement_keeps_the_dtype():
    half = X.astype(jnp.bfloat16)
    model = jaxnn.intervene(tapped, {"h": lambda h: h.astype(jnp.float32) * 2})
    assert model(half).dtype == jnp.bfloat16
    assert jaxnn.intervene(tapped, {"h": np.ones(3, int)})(half).tolist() == half.tolist()


def test_new_replacements_compile_nothing(caplog):
    network = jaxnn.init(jax.random.key(0), (3, 4, 2))
    jaxnn.capture(jaxnn.intervene(network, {"hidden_0": jnp.ones(4)}), X)
    new = jnp.arange(4.0)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        _, values = jaxnn.capture(jaxnn.intervene(network, {"hidden_0": new}), X)
    assert [r for r in caplog.records if "Compiling" in r.getMessage()] == []
    assert values["hidden_0"].tolist() == [0, 1, 2, 3]


def test_training_leaves_a_replacement_alone_and_trains_what_a_function_holds():
    network = jaxnn.init(jax.random.key(0), (3, 4, 2))
    add = jax.tree_util.Partial(jnp.add, jnp.zeros(2))
    model = jaxnn.intervene(network, {"hidden_0": jnp.full(4, 0.5), "output_in": add})
    options = {"epochs": 1, "batch_size": 1, "key": jax.random.key(1), "optimizer": optax.sgd(1.0)}
    after, _ = jaxnn.train(model, X[None], jnp.array([[0.9, 0.1]]), **options)
    replacements = dict(zip(after.layers, after.replacements, strict=True))
    assert replacements["hidden_0"].value.tolist() == [0.5] * 4
    assert np.all(replacements["output_in"].args[0] != 0)
    assert after.model.layers[0].kernel.tolist() == network.layers[0].kernel.tolist()
    assert np.any(after.model.layers[1].kernel != network.layers[1].kernel)


def test_trees_are_named_by_their_places():
    def model(x):
        state = jaxnn.tap({"a": x, "b": (2 * x, 3 * x)}, "state")
        return state["b"][1]

    _, values = jaxnn.capture(model, X)
    assert list(values) == ["state['a']", "state['b'][0]", "state['b'][1]"]
    assert_equal(jaxnn.intervene(model, {"state['b'][1]": times_ten})(X), 30 * X)


def test_a_name_must_be_a_string():
    with pytest.raises(TypeError, match="`name` must be a string; got int 3"):
        jaxnn.tap(X, 3)


def test_what_cannot_be_entered_is_named():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    model = jax.shard_map(tapped, mesh=mesh, in_specs=jax.P(), out_specs=jax.P())
    with pytest.raises(NotImplementedError, match="'shard_map' cannot be traced into, and contains 'h'"):
        jaxnn.capture(model, X)
    with pytest.raises(NotImplementedError, match="'shard_map' cannot be traced into, and contains 'sin'"):
        jaxnn.rewrite(model, {"sin": lambda operation, x: x})(X)
    assert_equal(jaxnn.rewrite(model, {"tanh": lambda operation, x: x})(X), model(X))


def test_a_function_goes_by_its_name():
    def model(x):
        return jax.nn.relu(x) + jax.nn.silu(x)

    through = jaxnn.rewrite(model, {"relu": lambda operation, x: x, "silu": lambda operation, x: 0 * x})
    assert_equal(through(X), X)
    doubled = jaxnn.rewrite(with_false_vjp(jnp.sin), {"function": lambda operation, x: 2 * operation(x)})
    assert_equal(doubled(X), 2 * jnp.sin(X))
    assert_equal(slope(doubled)(X), jnp.full(3, 14.0))  # the operation has the derivative that it had


def test_the_custom_derivative_of_what_is_not_touched_stays():
    def model(x):
        return jax.nn.relu(x) + jnp.tanh(x)

    at_zero = jnp.zeros(1)
    untouched = jaxnn.rewrite(model, {"tanh": lambda operation, x: 5 * x})
    assert slope(untouched)(at_zero).item() == 5.0  # relu's is defined to be 0 at 0
    touched = jaxnn.rewrite(
        model, {"max": lambda operation, x, y: operation(x, y), "tanh": lambda o, x: 5 * x}
    )
    assert slope(touched)(at_zero).item() == 5.5  # that of max is 1/2
    other = jaxnn.intervene(lambda x: jax.nn.relu(x) + tapped(x), {"h": times_ten})
    assert slope(other)(at_zero).item() == 0.0


def test_a_rule_may_bring_its_own_derivative():
    @jax.custom_vjp
    def guided(x):
        return jnp.maximum(x, 0)

    guided.defvjp(lambda x: (guided(x), x), lambda x, g: (jnp.where(x > 0, jnp.maximum(g, 0), 0),))
    model = jaxnn.rewrite(
        lambda x: -jax.nn.relu(x) + 2 * jax.nn.relu(2 * x), {"relu": lambda _, x: guided(x)}
    )
    assert slope(model)(X).tolist() == [4.0, 0.0, 4.0]


def test_a_rule_sees_parameters_and_all_values():
    seen = {}

    def rule(operation, x, y):
        seen.update(operation.params)
        return 2 * operation(x, y)

    product = jaxnn.rewrite(lambda x, *, y: {"product": x @ y}, {"dot_general": rule})
    assert_equal(product(X, y=X), {"product": 2 * X @ X})
    assert seen["dimension_numbers"] == (((0,), (0,)), ((), ()))


def test_a_rule_of_several_results():
    def rule(operation, *values):
        first, second = operation(*values)
        return second, first

    swapped = jaxnn.rewrite(lambda x: jnp.split(x, 2), {"split": rule})
    assert [half.item() for half in swapped(jnp.arange(2.0))] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            lambda operation, x: x[:1],
            r"`rules\['sin'\]\(operation, ...\)` must have shape \(3,\); got \(1,\)",
        ),
        (lambda operation, x: (x, x), r"`rules\['sin'\]` must return 1 values; got 2"),
        (lambda operation, x: lax.complex(x, x), "must have dtype float32; got complex64"),
    ],
)
def test_a_rule_that_gives_something_else_is_refused(rule, message):
    with pytest.raises(ValueError, match=message):
        jaxnn.rewrite(tapped, {"sin": rule})(X)


def test_what_is_no_rule_is_refused():
    with pytest.raises(TypeError, match=r"`rules\['sin'\]` must be callable; got float"):
        jaxnn.rewrite(tapped, {"sin": 1.0})
    with pytest.raises(TypeError, match="`function` must be callable; got int"):
        jaxnn.rewrite(1, {})
    with pytest.raises(TypeError, match="`rules` must be a dictionary by name; got list"):
        jaxnn.rewrite(tapped, [])
    with pytest.raises(TypeError, match=r"`rules\['sin'\]\(operation, ...\)` must be an array of numbers"):
        jaxnn.rewrite(tapped, {"sin": lambda operation, x: None})(X)


def test_values_keep_their_places_on_eight_devices():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch = jax.device_put(jnp.arange(16.0), jax.NamedSharding(mesh, jax.P("data")))
    _, values = jaxnn.capture(tapped, batch)
    assert len(values["h"].sharding.device_set) == 8
    assert_equal(values["h"], np.sin(np.arange(16.0)))


def test_random_draws_and_effects_stay_as_they_are():
    def model(x):
        key = jax.random.key(0)
        return jaxnn.tap(x * jax.random.normal(key, (3,)), "noisy")

    assert_equal(jaxnn.capture(model, X)[0], model(X))
    assert_equal(jaxnn.intervene(model, {"noisy": times_ten})(X), 10 * model(X))


def test_a_list_of_numbers_is_an_array():
    model = lambda x: jaxnn.tap(x @ np.eye(2, dtype=np.float32), "h") * 2  # noqa: E731
    y, values = jaxnn.capture(model, [1.0, 2.0])
    assert y.tolist() == [2, 4]
    assert values["h"].tolist() == [1, 2]
    assert jaxnn.intervene(model, {"h": jnp.array([5.0, 6.0])})([1.0, 2.0]).tolist() == [10, 12]
