"""Adapters: the framework's own answer, every submodule's output by its path, the module left as it was."""

import threading
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxnn
from jaxnn import attribution
from tests.conftest import in_precision

eqx = pytest.importorskip("equinox")

X = jax.random.normal(jax.random.key(9), (4,), jnp.float32)
IMAGE = jax.random.normal(jax.random.key(8), (8, 8, 3), jnp.float32)


# Linen


class Block(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, x, train: bool = True):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(self.width)(x))
        return nn.Dropout(0.5)(nn.relu(x), deterministic=not train)


class Many(nn.Module):
    """Lists of layers, a shared one, a Sequential, one called twice, a tuple as output, remat and scan."""

    def setup(self):
        self.blocks = [Block() for _ in range(2)]
        self.again = nn.Dense(4)
        self.tail = nn.Sequential([nn.Dense(5), jnp.tanh, nn.Dense(4)])
        self.cell = nn.LSTMCell(4)
        self.careful = nn.remat(Block, static_argnums=(2,))()
        self.stack = nn.scan(
            Step, variable_axes={"params": 0, "batch_stats": 0}, split_rngs={"params": True}, length=3
        )()

    def __call__(self, x, train: bool):
        for block in self.blocks:
            x = block(x, train)
        x = self.again(self.again(x))
        (carry, x) = self.cell((x, x), self.tail(x))
        x, _ = self.stack(x, None)
        return self.careful(x, train) + carry[0]

    def encode(self, x, deterministic):
        return self.blocks[0](x, train=not deterministic)


class Step(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(4)(x), None


class Picture(nn.Module):
    """One that insists on a batch axis."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="first")(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.avg_pool(nn.relu(x), (2, 2), (2, 2))
        return nn.Dense(3)(x.reshape(x.shape[0], -1))


def variables_of(module, x, *args, seed=0):
    variables = module.init(jax.random.key(seed), x, *args)
    # Statistics other than 0 and 1, so that the wrong mode would show.
    return jax.tree.map(lambda leaf: leaf + 0.3, variables)


def by_path(tree, path=(), last="__call__"):
    """A framework's captured values, the calls of one module numbered as `capture` numbers them."""
    found = {}
    for key, node in tree.items():
        if key == last:
            calls = node if isinstance(node, tuple) else tuple(node)
            for i, value in enumerate(calls):
                name = "/".join(map(str, path)) + (f"@{i + 1}" if len(calls) > 1 else "")
                leaves = jax.tree_util.tree_leaves_with_path(value)
                found |= {name + jax.tree_util.keystr(place): leaf for place, leaf in leaves}
        elif hasattr(node, "items"):
            found |= by_path(node, (*path, key), last)
    return found


def assert_same(values, expected):
    assert set(values) == set(expected)
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_linen_answers_as_apply_in_evaluation_mode():
    module = Many()
    variables = variables_of(module, X, False)
    model = jaxnn.from_linen(module, variables)
    assert model(X).tolist() == module.apply(variables, X, train=False).tolist()
    with pytest.raises(flax.errors.FlaxError):
        jaxnn.from_linen(module, variables, train=True)(X)  # as the user says: it would update statistics


@pytest.mark.without("check_tracer_leaks", "`nn.remat` with static arguments leaks inside of `jax.jit`")
def test_linen_names_what_flax_captures():
    module = Many()
    variables = variables_of(module, X, False)
    y, values = jaxnn.capture(jaxnn.from_linen(module, variables), X)
    # Flax's own capture does not see through nn.scan, nor into the remat that is called with a flag.
    _, state = module.apply(variables, X, train=False, capture_intermediates=True)
    expected = by_path(state["intermediates"])
    expected.pop("")
    inside = {name for name in values if name.startswith(("stack", "careful"))}
    assert inside >= {"stack/Dense_0", "stack[0]", "careful/Dense_0", "careful/BatchNorm_0", "careful"}
    assert values["stack/Dense_0"].shape == (3, 4)
    np.testing.assert_array_equal(values["stack/Dense_0"][-1], values["stack[0]"][-1])
    np.testing.assert_allclose(y, values["careful"] + values["cell[0][0]"], rtol=1e-6)
    outside = {name: value for name, value in values.items() if name not in inside}
    assert_same(outside, {name: expected[name] for name in expected if name not in inside})
    assert {"again@1", "again@2", "blocks_0/Dropout_0", "tail/layers_2", "cell[1]"} <= set(outside)


@pytest.mark.long
def test_linen_of_another_method_and_with_keywords():
    module = Many()
    variables = variables_of(module, X, False)
    expected = module.apply(variables, X, deterministic=True, method="encode").tolist()
    for method in ("encode", Many.encode):
        model = jaxnn.from_linen(module, variables, method=method)
        assert model(X).tolist() == expected
        assert list(jaxnn.capture(model, X)[1])[-1] == "blocks_0"
    dropped = module.apply(
        variables, X, False, method="encode", rngs={"dropout": jax.random.key(1)}, mutable=True
    )
    assert dropped[0].tolist() != expected
    attend = nn.MultiHeadDotProductAttention(num_heads=2, use_bias=False)
    sequence, mask = X.reshape(2, 2), jnp.array([[[1, 0], [1, 1]]])
    variables = attend.init(jax.random.key(0), sequence)
    model = jaxnn.from_linen(attend, variables, mask=mask)
    assert (
        model(sequence).tolist() == attend.apply(variables, sequence, mask=mask, deterministic=True).tolist()
    )
    assert any(leaf is mask for leaf in jax.tree.leaves(model))


@pytest.mark.long
def test_linen_with_a_batch_axis():
    module = Picture()
    variables = variables_of(module, IMAGE[None])
    model = jaxnn.from_linen(module, variables, batched=True)
    y, (_, values) = model(IMAGE), jaxnn.capture(model, IMAGE)
    assert y.tolist() == module.apply(variables, IMAGE[None])[0].tolist()
    _, state = module.apply(variables, IMAGE[None], capture_intermediates=True)
    expected = {name: value[0] for name, value in by_path(state["intermediates"]).items() if name}
    assert_same(values, expected)
    assert values["first"].shape == (8, 8, 4)
    quiet = jaxnn.intervene(model, {"Dense_0": lambda h: h.at[1].set(7.0)})
    assert quiet(IMAGE).tolist() == y.at[1].set(7.0).tolist()
    with pytest.raises(ValueError, match=r"`batched` needs .* batch axis of one .* shape \(8, 3\)"):
        jaxnn.from_linen(nn.Sequential([lambda x: x[0, 0]]), {}, batched=True)(IMAGE)


class Compiled(nn.Module):
    @nn.compact
    def __call__(self, x):
        many = nn.vmap(nn.Dense, variable_axes={"params": None}, split_rngs={"params": False})
        return nn.jit(nn.Dense)(4)(many(3)(x.reshape(2, 2)).ravel())


def test_linen_names_inside_of_jit_and_vmap_and_only_there():
    module = Compiled()
    variables = variables_of(module, X)
    expected = module.apply(variables, X)  # compiled before, without names
    y, values = jaxnn.capture(jaxnn.from_linen(module, variables), X)
    assert {name: value.shape for name, value in values.items()} == {
        "VmapDense_0": (2, 3),
        "JitDense_0": (4,),
    }
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert jaxnn.capture(jax.tree_util.Partial(module.apply, variables), X)[1] == {}


class Switched(nn.Module):
    training: bool = True

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=not self.training)(nn.Dense(3)(x))


def test_linen_switches_of_the_module_itself_are_set():
    variables = Switched(False).init(jax.random.key(0), X)
    model = jaxnn.from_linen(Switched(), variables)
    assert model(X).tolist() == Switched(False).apply(variables, X).tolist()
    assert jaxnn.from_linen(nn.Dropout(0.5, deterministic=False), {})(X).tolist() == X.tolist()


class ByIsTrain(nn.Module):
    @nn.compact
    def __call__(self, x, is_train):
        return nn.Dropout(0.5)(x, deterministic=not is_train)


class ByTest(nn.Module):
    @nn.compact
    def __call__(self, x, *, test=False):
        return nn.Dropout(0.5)(x, deterministic=test)


class ByEval(nn.Module):
    @nn.compact
    def __call__(self, x, eval):  # noqa: A002
        return nn.Dropout(0.5)(x, deterministic=eval)


class ByInference(nn.Module):
    inference: bool = False

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5)(x, deterministic=self.inference)


@pytest.mark.parametrize("module", [ByIsTrain, ByTest, ByEval, ByInference])
def test_other_names_of_the_evaluation_flag(module):
    assert jaxnn.from_linen(module(), {})(X).tolist() == X.tolist()


def test_linen_attributes_may_be_sets():
    module = nn.WeightNorm(nn.Dense(3))  # its `variable_filter` is one
    variables = variables_of(module, X)
    model = jaxnn.from_linen(module, variables)
    assert model(X).tolist() == module.apply(variables, X).tolist()
    again = jaxnn.from_linen(nn.WeightNorm(nn.Dense(3)), variables)
    assert jax.tree.structure(again) == jax.tree.structure(model)
    assert jax.tree.structure(model) != jax.tree.structure(
        jaxnn.from_linen(nn.WeightNorm(nn.Dense(3), variable_filter={"bias"}), variables)
    )


def test_linen_other_collections_are_held():
    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(x) * self.variable("constants", "scale", lambda: jnp.float32(2.0)).value

    module = Scaled()
    model = jaxnn.from_linen(module, variables_of(module, X))
    after = trained(model, X, jnp.zeros(1))
    assert after.frozen.value[0] == 2.3
    assert np.any(after.params["Dense_0"]["kernel"] != model.params["Dense_0"]["kernel"])


def trained(model, x, t):
    options = {"epochs": 1, "batch_size": 1, "key": jax.random.key(1), "optimizer": optax.sgd(0.1)}
    after, _ = jaxnn.train(model, x[None], t[None], **options)
    assert jax.tree.structure(after) == jax.tree.structure(model)
    return after


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jaxnn.from_linen(Block, {}), TypeError, "Linen module; got the class Block, not made yet"),
        (
            lambda: jaxnn.from_linen(Block(), [1]),
            TypeError,
            "`variables` must be a dictionary of collections",
        ),
        (
            lambda: jaxnn.from_linen(Block(), {"params": 1}),
            TypeError,
            "`variables` must be a dictionary of coll",
        ),
        (lambda: jaxnn.from_linen(Block().bind({}), {}), ValueError, "`module` must not be bound"),
        (lambda: jaxnn.from_linen(Block(), {}, method="code"), ValueError, "a method of Block .* got 'code'"),
        (lambda: jaxnn.from_linen(Block(), {}, mutable=True), ValueError, "`kwargs` must not hold 'mutable'"),
        (
            lambda: jaxnn.from_linen(Block(), {}, batched=1),
            TypeError,
            "`batched` must be True or False; got int",
        ),
        (lambda: jaxnn.from_linen(Block(), {}, flag={1}), TypeError, "`kwargs` must hold arrays"),
        (lambda: jaxnn.from_linen(Block(np.ones(2)), {}), TypeError, "`module` must hold arrays where"),
        (lambda: jaxnn.from_nnx(Block()), TypeError, "NNX module with a __call__; got Block"),
        (lambda: jaxnn.from_nnx(nnx.Rngs(0)), TypeError, "NNX module with a __call__; got Rngs"),
        (lambda: jaxnn.from_equinox(Block()), TypeError, "Equinox module with a __call__; got Block"),
        (
            lambda: jaxnn.from_equinox(stateful()[0]),
            ValueError,
            "`state` is needed, as the module has stateful",
        ),
        (lambda: jaxnn.from_equinox(stateful()[0], {}), TypeError, "must be an equinox.nn.State; got dict"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


# NNX


class Part(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(self.norm(self.linear(x)))


class Whole(nnx.Module):
    """Lists of modules, a shared one, a shared parameter, a Sequential, one called twice, remat."""

    def __init__(self, rngs):
        self.parts = nnx.List([Part(rngs) for _ in range(2)])
        self.parts.append(self.parts[0])
        self.named = nnx.Dict({"a": nnx.Linear(4, 4, rngs=rngs)})
        self.tied = nnx.Linear(4, 4, rngs=rngs)
        self.tied.kernel = self.named["a"].kernel
        self.tail = nnx.Sequential(nnx.Linear(4, 5, rngs=rngs), jnp.tanh, nnx.Linear(5, 4, rngs=rngs))
        self.count = nnx.Variable(jnp.zeros(()))

    def __call__(self, x):
        self.count[...] += 1
        for part in self.parts:
            x = part(x)
        x = self.tied(self.named["a"](x))
        return self.tail(self.tail(x)) * self.count


class Stack(nnx.Module):
    """Layers stacked along an axis and scanned, each computed again for its gradient."""

    def __init__(self, rngs):
        self.layers = nnx.vmap(Part, in_axes=(0,))(rngs.split(3))

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        @nnx.remat
        def forward(layer, x):
            return layer(x)

        return forward(self.layers, x)


def statistics(module):
    """The module with statistics other than 0 and 1, so that the wrong mode would show."""
    for _, part in nnx.iter_modules(module):
        if isinstance(part, nnx.BatchNorm):
            part.mean[...] = part.mean[...] + 0.3
            part.var[...] = part.var[...] + 0.7
    return module


def quiet(module):
    copy = nnx.clone(module)
    copy.eval()
    return copy


@pytest.mark.long("all but the first")
@pytest.mark.parametrize("kind", [Whole, Stack])
def test_nnx_answers_as_the_module_in_evaluation_mode(kind):
    module = statistics(kind(nnx.Rngs(0)))
    before = jax.tree.map(jnp.array, nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngState))))
    model = jaxnn.from_nnx(module)
    for _ in range(2):  # a call leaves no trace
        assert model(X).tolist() == quiet(module)(X).tolist()
    np.testing.assert_allclose(jaxnn.capture(model, X)[0], quiet(module)(X), rtol=1e-5)
    after = nnx.to_pure_dict(nnx.state(module, nnx.Not(nnx.RngState)))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))
    kinds = {type(part) for _, part in nnx.iter_modules(module)}
    assert kinds <= {
        Whole,
        Stack,
        Part,
        nnx.List,
        nnx.Dict,
        nnx.Linear,
        nnx.BatchNorm,
        nnx.Dropout,
        nnx.Sequential,
    }
    assert not module_of(module).drop.deterministic  # still in training mode


def module_of(module):
    return module.layers if isinstance(module, Stack) else module.parts[0]


def test_nnx_names_what_flax_captures():
    module = statistics(Whole(nnx.Rngs(0)))
    _, values = jaxnn.capture(jaxnn.from_nnx(module), X)
    _, state = nnx.capture(quiet(module), nnx.Intermediate, method_outputs=nnx.Intermediate)(X)
    expected = by_path(state)
    expected.pop("")
    assert_same(values, expected)
    assert {"parts/0@1", "parts/0@2", "parts/1/norm", "named/a", "tied", "tail@2", "tail/layers/2@1"} <= set(
        values
    )


def test_nnx_names_inside_of_scan_and_remat():
    module = statistics(Stack(nnx.Rngs(0)))
    y, values = jaxnn.capture(jaxnn.from_nnx(module), X)
    assert {name: value.shape for name, value in values.items()} == {
        "layers/linear": (3, 4),
        "layers/norm": (3, 4),
        "layers/drop": (3, 4),
        "layers": (3, 4),
    }
    np.testing.assert_allclose(values["layers"][-1], y, rtol=1e-6)
    zeroed = jaxnn.intervene(jaxnn.from_nnx(module), {"layers": jnp.zeros(4)})
    assert zeroed(X).tolist() == [0] * 4


class NNXPicture(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x, train=True):
        x = nnx.relu(self.norm(self.conv(x), use_running_average=not train))
        x = nnx.max_pool(x, (2, 2), (2, 2))
        return self.dense(x.reshape(x.shape[0], -1))


def test_nnx_with_a_batch_axis():
    module = statistics(NNXPicture(nnx.Rngs(0)))
    model = jaxnn.from_nnx(module, batched=True)
    assert model(IMAGE).tolist() == quiet(module)(IMAGE[None], train=False)[0].tolist()
    _, values = jaxnn.capture(model, IMAGE)
    assert {name: value.shape for name, value in values.items()} == {
        "conv": (8, 8, 4),
        "norm": (8, 8, 4),
        "dense": (3,),
    }


@pytest.mark.long
def test_nnx_trains_parameters_shared_as_one_and_nothing_else():
    module = statistics(Whole(nnx.Rngs(0)))
    model = jaxnn.from_nnx(module)
    after = trained(model, X, jnp.zeros(4))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after.frozen, model.frozen))
    assert "kernel" not in after.params["tied"]  # it stands in "named"
    old, new = model.params["named"]["a"]["kernel"], after.params["named"]["a"]["kernel"]
    assert np.any(old[...] != new[...])
    # The gradient of the shared one is the sum over both of its places.
    slopes = jax.grad(lambda model: jnp.sum(model(X)), allow_int=True)(model)

    def of_module(kernel):
        copy = quiet(module)
        copy.named["a"].kernel[...] = kernel
        return jnp.sum(copy(X))

    expected = jax.grad(of_module)(module.named["a"].kernel[...])
    np.testing.assert_allclose(slopes.params["named"]["a"]["kernel"][...], expected, rtol=1e-5)


def test_nnx_modules_are_copied():
    module = Whole(nnx.Rngs(0))
    model = jaxnn.from_nnx(module)
    before = model(X).tolist()
    module.tied.bias[...] += 1
    module.train()
    assert model(X).tolist() == before


# Equinox


class Layer(eqx.Module):
    linear: eqx.nn.Linear
    activation: Any

    def __init__(self, key):
        self.linear, self.activation = eqx.nn.Linear(4, 4, key=key), jax.nn.relu

    def __call__(self, x):
        return self.activation(self.linear(x)) + x


class Net(eqx.Module):
    """Lists and dictionaries of modules, one called twice, dropout, layers in a scan, a vmapped one."""

    layers: list
    named: dict
    drop: eqx.nn.Dropout
    stack: Layer
    norm: eqx.nn.LayerNorm
    scale: float = 0.5

    def __init__(self, key):
        keys = jax.random.split(key, 6)
        self.layers = [Layer(keys[0]), (Layer(keys[1]), jnp.tanh)]
        self.named = {"a": eqx.nn.MLP(4, 4, 3, 1, key=keys[2])}
        self.drop, self.norm = eqx.nn.Dropout(0.5), eqx.nn.LayerNorm(2)
        self.stack = eqx.filter_vmap(Layer)(keys[3:])

    def __call__(self, x, *, key=None):
        x = self.layers[1][1](self.layers[1][0](self.layers[0](self.layers[0](x))))
        x = self.drop(self.named["a"](x), key=key) * self.scale
        arrays, static = eqx.partition(self.stack, eqx.is_array)
        x, _ = jax.lax.scan(lambda x, one: (eqx.combine(one, static)(x), None), x, arrays)
        return eqx.filter_jit(jax.vmap(self.norm))(x.reshape(2, 2))


class Normed(eqx.Module):
    linear: eqx.nn.Linear
    layers: eqx.nn.Sequential

    def __init__(self, key):
        self.linear = eqx.nn.Linear(4, 4, key=key)
        self.layers = eqx.nn.Sequential([eqx.nn.BatchNorm(4, "batch", mode="ema"), eqx.nn.Lambda(jnp.tanh)])

    def __call__(self, x, state):
        return self.layers(self.linear(x), state)


def stateful(seed=0):
    module, state = eqx.nn.make_with_state(Normed)(jax.random.key(seed))
    _, state = jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
        jax.random.normal(jax.random.key(5), (8, 4)), state
    )
    return module, state


def test_equinox_answers_as_the_module_in_inference_mode():
    module = Net(jax.random.key(0))
    model = jaxnn.from_equinox(module)
    assert model(X).tolist() == eqx.nn.inference_mode(module)(X).tolist()
    assert not module.drop.inference
    assert type(module.layers[0]) is Layer


@pytest.mark.without("check_tracer_leaks", "Equinox's `filter_jit` leaks inside of `jax.jit`")
def test_equinox_names_what_the_layers_give():
    module = eqx.nn.inference_mode(Net(jax.random.key(0)))
    y, values = jaxnn.capture(jaxnn.from_equinox(module), X)
    first = module.layers[0](X)
    second = module.layers[0](first)
    third = jnp.tanh(module.layers[1][0](second))
    expected = {
        "layers/0/linear@1": module.layers[0].linear(X),
        "layers/0@1": first,
        "layers/0/linear@2": module.layers[0].linear(first),
        "layers/0@2": second,
        "layers/1/0/linear": module.layers[1][0].linear(second),
        "layers/1/0": module.layers[1][0](second),
        "named/a/layers/0": module.named["a"].layers[0](third),
        "named/a/layers/1": module.named["a"](third),
        "named/a": module.named["a"](third),
        "drop": module.named["a"](third),
        "norm": y,
    }
    stacked = {name: values.pop(name) for name in ("stack/linear", "stack")}
    assert_same(values, expected)
    assert [value.shape for value in stacked.values()] == [(3, 4), (3, 4)]
    np.testing.assert_allclose(jax.vmap(module.norm)(stacked["stack"][-1].reshape(2, 2)), y, rtol=1e-5)


@pytest.mark.long
def test_equinox_state_is_read_and_held():
    module, state = stateful()
    model = jaxnn.from_equinox(module, state)
    expected, _ = eqx.nn.inference_mode(module)(X, state)
    for _ in range(2):  # the state is not used up
        assert model(X).tolist() == expected.tolist()
    _, values = jaxnn.capture(model, X)
    assert list(values) == ["linear", "layers/layers/0", "layers/layers/1", "layers"]
    after = trained(model, X, jnp.zeros(4))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), after.frozen, model.frozen))
    assert np.any(after.arrays.linear.weight != module.linear.weight)


def test_equinox_shared_layers():
    class Tied(eqx.Module):
        shared: eqx.nn.Shared

        def __init__(self, key):
            keys = jax.random.split(key)
            pair = [eqx.nn.Linear(4, 4, key=k) for k in keys]
            self.shared = eqx.nn.Shared(pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight)

        def __call__(self, x):
            one, two = self.shared()
            return two(one(x))

    module = Tied(jax.random.key(0))
    y, values = jaxnn.capture(jaxnn.from_equinox(module), X)
    np.testing.assert_allclose(y, module(X), rtol=1e-6)
    assert list(values) == ["shared/pytree/0", "shared/pytree/1"]


# All of them


class DenseBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.tanh(nn.Dense(5)(x)))


def linen_model(seed=0, dtype=jnp.float32):
    module = nn.Sequential([nn.Dense(5), nn.BatchNorm(use_running_average=True), jnp.tanh, DenseBlock()])
    variables = jax.tree.map(lambda a: a.astype(dtype), module.init(jax.random.key(seed), X))
    return jaxnn.from_linen(module, variables)


def nnx_model(seed=0, dtype=jnp.float32):
    options = {"rngs": nnx.Rngs(seed), "param_dtype": dtype, "dtype": dtype}
    module = nnx.Sequential(
        nnx.Linear(4, 5, **options),
        nnx.BatchNorm(5, **options),
        nnx.Dropout(0.5, rngs=nnx.Rngs(seed)),
        jnp.tanh,
        nnx.Linear(5, 3, **options),
    )
    for _, part in nnx.iter_modules(module):
        if isinstance(part, nnx.BatchNorm):
            part.mean, part.var = (nnx.BatchStat(v[...].astype(dtype)) for v in (part.mean, part.var))
    return jaxnn.from_nnx(module)


def equinox_model(seed=0, dtype=jnp.float32):
    module = eqx.nn.MLP(4, 3, 5, 1, activation=jnp.tanh, key=jax.random.key(seed), dtype=dtype)
    return jaxnn.from_equinox(module)


MODELS = {"linen": linen_model, "nnx": nnx_model, "equinox": equinox_model}
LAYERS = {"linen": "layers_0", "nnx": "layers/0", "equinox": "layers/0"}
every_model = pytest.mark.parametrize("kind", MODELS)


@every_model
@pytest.mark.without("check_tracer_leaks", "it turns off caches")
def test_new_weights_compile_nothing(kind, caplog):
    models = [MODELS[kind](seed) for seed in range(2)]
    assert jax.tree.structure(models[0]) == jax.tree.structure(models[1])
    answers = [ask(models[0], X)]
    with jax.log_compiles(), caplog.at_level("WARNING"):
        answers.append(ask(models[1], X))
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []
    assert np.all(answers[0][0] != answers[1][0])


def ask(model, x):
    y, values = jaxnn.capture(model, x)
    return y, values, attribution.saliency(model, x, 1)


@every_model
def test_stacked_models_are_an_ensemble(kind):
    models = [MODELS[kind](seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *models)
    answers = jax.vmap(lambda model, x: jaxnn.capture(model, x)[1][LAYERS[kind]], (0, None))(stacked, X)
    assert_same(
        dict(enumerate(answers)), {i: jaxnn.capture(m, X)[1][LAYERS[kind]] for i, m in enumerate(models)}
    )


@every_model
def test_the_gradient_of_a_captured_value_and_of_an_intervention(kind):
    model = MODELS[kind]()
    slopes = jax.grad(lambda x: jnp.sum(jaxnn.capture(model, x)[1][LAYERS[kind]]))(X)
    params = model.arrays if kind == "equinox" else model.params
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2 and 4 in leaf.shape]
    kernel = kernels[0].T if kind == "equinox" else kernels[0]
    np.testing.assert_allclose(slopes, kernel.sum(axis=1), rtol=1e-5)
    cut = jaxnn.intervene(model, {LAYERS[kind]: jnp.ones(5)})
    assert attribution.saliency(cut, X, 0).tolist() == [0] * 4


@pytest.mark.long("all but the first")
@every_model
@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_dtype_is_kept(kind, dtype):
    with in_precision(dtype):
        model = MODELS[kind](dtype=jnp.dtype(dtype))
        y, values = jaxnn.capture(model, X.astype(dtype))
        assert {leaf.dtype for leaf in jax.tree.leaves((y, values))} == {jnp.dtype(dtype)}


@every_model
def test_examples_over_eight_devices(kind):
    model = MODELS[kind]()
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    batch = jax.random.normal(jax.random.key(3), (16, 4))
    spread = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("data")))
    many = jax.jit(jax.vmap(jaxnn.capture, (None, 0)))
    for one, other in zip(
        jax.tree.leaves(many(model, spread)), jax.tree.leaves(many(model, batch)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
        assert len(one.sharding.device_set) == 8


@pytest.mark.long("all but the first")
@every_model
def test_training_lowers_the_loss(kind):
    batch = jax.random.normal(jax.random.key(3), (64, 4))
    labels = (batch[:, 0] > 0).astype(int)
    model, history = jaxnn.train(
        MODELS[kind](),
        batch,
        labels,
        epochs=20,
        batch_size=16,
        key=jax.random.key(1),
        optimizer=optax.adam(0.02),
        loss=jaxnn.losses.cross_entropy,
    )
    assert history.accuracy[-1] > 0.9
    for leaf in jax.tree.leaves(model):
        assert np.all(np.isfinite(leaf))


@every_model
def test_models_can_be_saved(kind, tmp_path):
    model = MODELS[kind]()
    jaxnn.save(tmp_path / "model", model)
    again = jaxnn.load(tmp_path / "model", like=MODELS[kind](seed=1))
    assert again(X).tolist() == model(X).tolist()


@every_model
def test_threads_do_not_disturb_each_other(kind):
    """Names of one call never show in another, nor in the framework's own calls at the same time."""
    models = [MODELS[kind](seed) for seed in range(4)]
    expected = [set(jaxnn.capture(model, X)[1]) for model in models]
    jax.clear_caches()
    found: list[Any] = [None] * 4

    def work(i):
        _, values = jaxnn.capture(models[i], X)
        found[i] = set(values)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
