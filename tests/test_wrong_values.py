"""Values that must not be taken: one argument of a valid call of each public function is wrong at a time."""

import functools
import typing
from types import NoneType, UnionType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import _checks, attacks, attribution, losses, rules
from tests.helpers.calls import KEY, NET, TANH, Call, X, Y, calls

WIDE = 2**32 + 1  # 1, cut to 32 bits
FITS = "must hold numbers that fit into JAX's( u?int32)?; got"
CALLS = pytest.mark.parametrize("name", sorted(calls()))


_KINDS = {
    bool: {bool, NoneType},
    int: {int, NoneType},
    float: {float, NoneType, np.ndarray, np.generic, jax.Array},
}


def _options(call: Call, kind: type) -> list[str]:
    """The parameters of a type, such as `float | None`, that are no arrays."""
    types = {name: typing.get_args(p.annotation) or (p.annotation,) for name, p in call.parameters.items()}
    return [
        name for name, kinds in types.items()
        if kind in kinds and _KINDS[kind].issuperset(kinds)
        and typing.get_origin(call.parameters[name].annotation) in (None, UnionType, typing.Union)
    ]  # fmt: skip


def _arrays(call: Call) -> dict[str, np.ndarray]:
    """The arguments that hold numbers for JAX, those that are left out with one that fits."""
    others = {"baseline": X[0], "groups": np.arange(4), "baselines": X[:2], "held_out_labels": Y}
    given = {name: others[name] for name in call.parameters if name in others} | call.arguments
    counts = {"batch_size", "n_samples", "grid", "shape", "key"}
    arrays = {name: np.asarray(value) for name, value in given.items() if isinstance(value, np.ndarray | int)}
    return {
        name: array for name, array in arrays.items()
        if name not in counts and (name == "arrays" or call.parameters[name].annotation is not int)
    }  # fmt: skip


@CALLS
def test_integers_beyond_32_bits_do_not_wrap(name):
    call = calls()[name]
    for argument, array in _arrays(call).items():
        for dtype in (np.int64, np.uint64):
            with pytest.raises(ValueError, match=rf"`{argument}(\[.*\])?` {FITS}"):
                call(**{argument: np.full(array.shape, WIDE, dtype)})
        with pytest.raises((TypeError, ValueError), match=rf"`{argument}(\[.*\])?` must"):
            call(**{argument: np.full(array.shape, WIDE, np.int64).tolist()})


@CALLS
def test_a_flag_is_true_or_false(name):
    call = calls()[name]
    for argument in _options(call, bool):
        for bad in ("no", 1, np.array([True, False]), jnp.array(True)):
            with pytest.raises(TypeError, match=f"`{argument}` must be True or False; got"):
                call(**{argument: bad})


@CALLS
def test_a_number_is_finite(name):
    """Also where it is written into a function that is traced."""
    call = calls()[name]
    for argument in _options(call, float):
        for bad in (np.nan, np.inf, -np.inf, 1e39):
            with pytest.raises(ValueError, match=f"`{argument}` must (be finite|lie|be)"):
                call(**{argument: bad})
        for bad in (True, "1", [1.0, 2.0]):
            with pytest.raises((TypeError, ValueError), match=f"`{argument}` must"):
                call(**{argument: bad})
        with pytest.raises(ValueError, match=f"`{argument}` must"):
            jax.jit(lambda argument=argument: call(**{argument: np.nan}))()


@CALLS
def test_a_count_is_a_whole_number_that_jax_can_count_to(name):
    call = calls()[name]
    for argument in _options(call, int):
        for bad in (2**31, 10**12, 1.5, "2", True, [1, 2]):
            with pytest.raises((TypeError, ValueError), match=rf"`{argument}(\[.*\])?` must"):
                call(**{argument: bad})


LARGE = [
    ("dreaming.pad", {"pixels": 10**6}),
    ("dreaming.blur", {"sigma": 1e12}),
    ("dreaming.cppn", {"width": 10**6}),
    ("dreaming.cppn", {"depth": 10**9}),
    ("dreaming.standard_transforms", {"shape": (10**8, 10**8)}),
    ("dream", {"shape": (10**6, 10**6)}),
    ("dream", {"steps": 10**8, "record_every": 1, "shape": (100, 100)}),
    ("init", {"sizes": (10**6, 10**6)}),
    ("from_numpy", {"shape": (10**6, 10**6)}),
    ("map_examples", {"batch_size": 2**31 - 1}),
    ("datasets.encode_labels", {"labels": np.zeros(1000, int), "classes": 10**9}),
    ("datasets.point_set", {"n": 2**31 - 1}),
    ("weights.random_mask", {"shape": (10**6, 10**6)}),
    ("weights.lesion", {"units": range(10**12)}),
    ("attribution.grad_cam", {"shape": (10**6, 10**6)}),
    ("attribution.integrated_gradients", {"steps": 2**31 - 1}),
    ("attribution.smooth_grad", {"n_samples": 2**31 - 1}),
    ("attribution.feature_ablation", {"groups": np.zeros(4, int), "n_groups": 2**31 - 1}),
    ("attacks.apgd", {"steps": 2**31 - 1}),
    ("attacks.noise", {"n_samples": 2**31 - 1}),
    ("rules.distill_tree", {"n_samples": 2**31 - 1}),
    ("rules.trepan", {"n_samples": 2**31 - 1}),
    ("rules.rule_list", {"thresholds": 2**31 - 1}),
    ("rules.anchor", {"thresholds": 2**31 - 1}),
    ("plot.image_grid", {"columns": 10**7}),
]


@pytest.mark.parametrize(("name", "arguments"), LARGE, ids=[f"{n} {next(iter(a))}" for n, a in LARGE])
def test_what_the_memory_does_not_hold_is_refused(name, arguments, monkeypatch):
    monkeypatch.setattr(_checks, "memory", lambda: 2**34)  # on any machine
    named = "|".join({*arguments} | ({"pixels"} if "transforms" in name else set()))
    with pytest.raises(ValueError, match=rf"`({named})` must (be smaller: it takes .* GiB|lie from)"):
        calls()[name](**arguments)


def test_a_batch_is_no_larger_than_the_memory(monkeypatch):
    """The result does not depend on it; all of these at once would take 300 GiB."""
    monkeypatch.setattr(_checks, "memory", lambda: 2**24)
    options = {"n_samples": 10**5, "batch_size": 10**5, "key": KEY}
    model = lambda x: jnp.sum(jnp.tanh(x[:, None] * jnp.ones(200)))  # noqa: E731
    found = attribution.smooth_grad(model, jnp.ones(4), **options)
    assert found.shape == (4,)


def test_concrete_values_are_checked_while_others_are_traced():
    """Labels, bounds and options that are written into a function under `jit` and `vmap`."""
    for call, message in (
        (lambda x: attacks.fgsm(NET, x, 7, epsilon=0.1), "`label` must lie from 0 to 2"),
        (lambda x: attacks.fgsm(NET, x, 1, epsilon=-1), "`epsilon` must be at least 0"),
        (lambda x: attacks.fgsm(NET, x, 1, epsilon=0.1, bounds=(1, 0)), "`bounds` must be"),
        (lambda x: attacks.hop_skip_jump(NET, x, 1, key=KEY, bounds=(-np.inf, 1)), "`start` must be given"),
        (lambda x: attribution.smooth_grad(NET, x, 1, key=KEY, bounds=(1, 0)), "`bounds` must be"),
        (
            lambda x: attribution.feature_ablation(lambda i: i.sum(), x.astype(int), baseline=0.5),
            "`baseline`",
        ),
        (lambda x: attribution.lrp(NET, x, 1, epsilon=np.inf), "`epsilon` must be finite"),
        (lambda x: jaxnn.dreaming.logit(7)(NET(x), {}), "`index` must lie"),
        (lambda x: jaxnn.dreaming.scale(2, 1)(KEY, x[None]), "`low` must not"),
        (lambda x: jaxnn.datasets.encode_labels([11]), "`labels` must lie"),
        (lambda x: jaxnn.backquery(TANH, [2.0, 0, 0]), "`y` must lie"),
        (
            lambda x: jaxnn.train(NET, X, Y + 1, epochs=1, batch_size=4, key=KEY, loss=losses.cross_entropy),
            "`ta",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            jax.jit(call)(X[0])
        with pytest.raises(ValueError, match=message):
            jax.vmap(call)(X)


def test_of_labels_of_parts_of_models_and_in_batches():
    """Where they are not an argument of their own."""
    wide, data = np.full(8, WIDE), {"epochs": 1, "loss": losses.cross_entropy}
    with pytest.raises(ValueError, match=rf"`validation\[1\]` {FITS} 4294967297. Set `jax_e"):
        jaxnn.train(NET, X, Y, batch_size=4, key=KEY, validation=(X, wide), **data)
    with pytest.raises(ValueError, match=f"`targets of batch 2` {FITS}"):
        jaxnn.train(NET, [(X, Y), (X, wide)], **data)
    with pytest.raises(ValueError, match=rf"`replacements\['hidden_0'\]` {FITS}"):
        jaxnn.intervene(NET, {"hidden_0": wide})
    with pytest.raises(ValueError, match=rf"`model.*` {FITS}"):
        attribution.feature_ablation(jax.tree_util.Partial(lambda table, x: (table + x).sum(), wide), X[0, 0])
    with pytest.raises(ValueError, match=f"`args` {FITS}"):
        jaxnn.rewrite(lambda x: x, {})(wide)
    with pytest.raises(Exception, match=rf"`function\(x\)` {FITS}"):
        jaxnn.from_numpy(lambda x: wide[: len(x)], (), dtype=int)(X[0])
    assert float(jaxnn.from_numpy(lambda x: wide[: len(x)], ())(X[0])) == 2.0**32
    with pytest.raises(ValueError, match=f"`depth` {FITS}"):
        rules.Tree(*np.array([[-1], [0], [0], [0]]), np.eye(1, 2))(X[0], wide[0])


def test_a_file_is_looked_at_batch_by_batch(tmp_path):
    """It may be larger than the memory, and is read once."""
    file = np.memmap(tmp_path / "labels", np.int64, "w+", shape=(9,))
    file[-1] = WIDE
    seen = []

    def see(x):
        jax.debug.callback(seen.append, x)
        return x

    with pytest.raises(ValueError, match=f"`arrays` {FITS}"):
        jaxnn.map_examples(see, file, batch_size=3)
    jax.effects_barrier()
    assert len(seen) == 6


def test_under_x64_they_stay_what_they_are_or_are_refused():
    with jax.enable_x64(True):
        assert jaxnn.capture(lambda x: x, np.array([WIDE]))[0].tolist() == [WIDE]
        for call in (
            lambda: attacks.misclassified(np.int64(WIDE)),
            lambda: attacks.universal(NET, X, np.full(8, WIDE), epsilon=0.1, key=KEY),
            lambda: attribution.feature_ablation(NET, X[0], 1, groups=np.array([0, 1, 2**32, 1])),
            lambda: jaxnn.intervene(lambda x: jaxnn.tap(jnp.int32(x), "i"), {"i": np.int64(WIDE)})(1),
        ):
            with pytest.raises(ValueError, match="`(labels?|groups|replacements.*)` must"):
                call()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((X, Y + 1), r"`targets of batch 2` must hold labels in \[0, 3\), .* from 1 to 3"),
        ((X, -np.eye(3)[Y]), "`targets of batch 2` must hold probabilities, at least 0; got -1.0"),
        ((np.full_like(X, np.nan), Y), "`inputs of batch 2` must be finite; 32 of its 32 values are not"),
    ],
)
def test_bad_data_in_a_later_batch_are_not_blamed_on_the_learning_rate(batch, message):
    first = (X, Y if batch[1].ndim == 1 else np.eye(3)[Y])
    with pytest.raises(ValueError, match=message):
        jaxnn.train(NET, [first, batch], epochs=1, loss=losses.cross_entropy)


def test_probabilities_are_not_negative():
    with pytest.raises(ValueError, match="`target` must be at least 0; got values from -0.5 to 1.5"):
        losses.cross_entropy([0.0, 1.0], [-0.5, 1.5])
    data = {"epochs": 1, "batch_size": 4, "key": KEY, "loss": losses.cross_entropy}
    with pytest.raises(ValueError, match=r"`validation\[1\]` must hold probabilities"):
        jaxnn.train(NET, X, Y, validation=(X, -np.eye(3)[Y]), **data)


@pytest.mark.parametrize("name", ["learning_rate", "initial_constant"])
def test_an_attack_that_would_not_move_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be above 0"):
        attacks.carlini_wagner(NET, X[0], 1, **{name: 0})
    with pytest.raises(ValueError, match="`step_size` must be above 0"):
        attacks.fmn(NET, X[0], 1, step_size=0)


def test_initializers_are_held_to_their_shape_and_dtypes_to_those_that_jax_has():
    for wrong, message in (
        (
            lambda key, shape, dtype: jnp.ones(shape[::-1], dtype),
            "must have shape \\(4, 3\\), .*; got \\(3, 4\\)",
        ),
        (
            lambda key, shape, dtype: 1.0,
            r"must have shape \(4, 3\), the one that it is called with; got \(\)",
        ),
        (lambda key, shape, dtype: None, "must be an array of numbers; got NoneType"),
        (lambda key, shape, dtype: jnp.ones(shape, complex), "must hold real numbers"),
        ("normal", "must be a function of"),
    ):
        with pytest.raises((TypeError, ValueError), match="`kernel_init.*` " + message.replace("\\\\", "\\")):
            jaxnn.init(jax.random.key(0), (4, 3), kernel_init=wrong)
    for make in (
        lambda dtype: jaxnn.init(jax.random.key(0), (4, 3), dtype=dtype),
        lambda dtype: jaxnn.from_numpy(np.sum, (), dtype=dtype),
    ):
        make(float)
        with pytest.raises(
            ValueError, match="`dtype` must be a type that JAX has; float64 needs `jax_enable_"
        ):
            make(np.float64)


def test_attributions_have_the_shape_of_what_they_are_of():
    gap = lambda values: attribution.completeness_gap(NET, X[0], 1, values)  # noqa: E731
    layer = attribution.layer_integrated_gradients(NET, X[0], 1, layer="hidden_0")
    np.testing.assert_allclose(gap(layer), 0, atol=1e-5)
    for wrong in (np.ones(7), np.ones((1, 4)), 2.0, attribution.Estimate(X[0], X[0]), {"x": X[0]}):
        with pytest.raises(ValueError, match=r"`attributions` must have .*\(4,\), .*, \(5,\) of 'hidden_0'"):
            gap(wrong)
    scanned = lambda x: jax.lax.scan(lambda c, _: (jaxnn.tap(c * x, "h"), None), x, length=3)[0].sum()  # noqa: E731
    for values in (np.ones((3, 4)), np.ones(4)):
        attribution.completeness_gap(scanned, X[0], None, values)


@pytest.mark.parametrize(
    "name", ["saliency", "input_x_gradient", "smooth_grad", "var_grad", "guided_backprop", "deconvnet"]
)
def test_nan_does_not_vanish_in_a_relu(name):
    """Its derivative there is 0."""
    options = {"key": KEY, "n_samples": 2, "bounds": (0, 1)} if name in ("smooth_grad", "var_grad") else {}
    method = getattr(attribution, name)
    assert np.isnan(method(NET, [0.1, np.nan, 0.3, 0.4], 1, **options)).all()
    assert np.isfinite(method(NET, X[0], 1, **options)).all()
    filled = lambda x: NET(jnp.where(jnp.isnan(x), 0, x))  # noqa: E731
    if name != "input_x_gradient":
        assert np.isfinite(method(filled, [0.1, np.nan, 0.3, 0.4], 1, **options)).all()
    assert np.isnan(
        attribution.neuron_gradient(lambda x: jaxnn.tap(NET(x), "y"), [np.nan] * 4, 0, layer="y")
    ).all()


def test_a_rule_for_no_operation_is_a_warning():
    rule = lambda operation, x: x  # noqa: E731
    square = lambda x: jnp.tanh(x) ** 2  # noqa: E731
    with pytest.warns(
        UserWarning, match=r"`rules\['thanh'\]` changes nothing.*: integer_pow, tanh"
    ) as caught:
        jaxnn.rewrite(square, {"thanh": rule})(1.0)
    assert caught[0].filename == __file__
    assert float(jaxnn.rewrite(square, {"tanh": rule, "exp": rule, "relu": rule})(2.0)) == 4.0
    for method in (attribution.lrp, attribution.deep_lift):
        with pytest.warns(
            UserWarning, match=r"`primitive_rules\['relu'\]` changes nothing: .* no prim"
        ) as caught:
            method(NET, X[0], 1, primitive_rules={"relu": rule})
        assert caught[0].filename == __file__


NOT_TRACED = {
    "text": lambda x: "a",
    "None": lambda x: None,
    "object": lambda x: object(),
    "condition": lambda x: x[:2] if x[0] > 0 else x[2:],
    "number": lambda x: jnp.ones(3) * float(x[0]),
    "index": lambda x: [x, -x][x[0].astype(int)],
    "NumPy": np.sort,
}


@pytest.mark.parametrize("kind", NOT_TRACED)
def test_what_jax_cannot_trace_is_named(kind):
    function = NOT_TRACED[kind]
    data = {"epochs": 1, "batch_size": 4, "key": KEY}
    trained = jax.tree_util.Partial(lambda _, x: function(x), jnp.ones(1))
    named = {
        lambda: attribution.saliency(function, X[0], 1): "model",
        lambda: attribution.saliency(NET, X[0], function): "target",
        lambda: attacks.fgsm(function, X[0], 1, epsilon=0.1): "model",
        lambda: rules.linear_region(function, X[0]): "model",
        lambda: rules.trepan(function, X, held_out=X, key=KEY): "model",
        lambda: rules.trepan(NET, X, held_out=X, key=KEY, features=function): "features",
        lambda: rules.trepan(NET, X, held_out=X, key=KEY, decide=function): "decide",
        lambda: jaxnn.train(trained, X, X, **data): "model",
        lambda: jaxnn.train(NET, X, X, loss=lambda y, t: function(y), **data): "loss",
        lambda: attribution.permutation_importance(NET, X, X, key=KEY, loss=lambda y, t: function(y)): "loss",
    }
    if kind != "None":  # a function may be there for its names
        named[lambda: jaxnn.capture(function, X[0])] = "model"
    for call, name in named.items():
        with pytest.raises(
            TypeError, match=f"`{name}` must (be a function that JAX can trace|return an array)"
        ):
            call()


def test_functions_of_rules_are_named():
    for name in ("features", "decide"):
        with pytest.raises(TypeError, match=f"`{name}` must be callable"):
            rules.distill_tree(NET, X, held_out=X, key=KEY, **{name: "a"})


def test_a_network_without_arrays_is_named():
    hidden, output = NET.layers
    for layer in (hidden.replace(kernel=None), hidden.replace(bias="b"), hidden.replace(kernel=[[1.0]])):
        network = jaxnn.Network((layer, output))
        for call in (lambda n: jaxnn.query(n, X[0]), lambda n: jaxnn.weights.path_products(n)):
            with pytest.raises(
                TypeError,
                match="`network` must (hold arrays; its layer 'hidden_0' has|be a pytree of arrays)",
            ):
                call(network)


def _array(model, x, label, *, epsilon, key, **options):
    return x + epsilon


def _shorter(model, x, label, *, epsilon, key, **options):
    return attacks.Attack(x[:1], jnp.array(True), jnp.array(0.0), jnp.array(1))


def _of_rows(model, x, label, *, key, **options):
    return attacks.Attack(x, jnp.ones(2, bool), jnp.array(0.0), jnp.array(1))


@pytest.mark.parametrize("attack", [_array, _shorter, _of_rows])
def test_an_attack_returns_an_attack(attack):
    labels = np.asarray(jax.vmap(NET)(X).argmax(1))
    for call in (
        lambda: attacks.strongest(attack)(NET, X[0], 1, epsilon=0.1, key=KEY),
        lambda: attacks.minimal_norm(NET, X[0], 1, attack, key=KEY),
        lambda: attacks.robust_accuracy(NET, X, labels, attack, 0.1, batch_size=4, key=KEY),
        lambda: attacks.under_attack(NET, functools.partial(attack, epsilon=0.1), key=KEY)((X[0], 1)),
    ):
        with pytest.raises(
            (TypeError, ValueError), match="`attack` must return an (`Attack`|input like `x`)"
        ):
            call()
