"""PyTorch's own output, every submodule's output by its path, and the methods, on networks of each kind."""

import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnn
from jaxnn import attribution
from tests.conftest import in_precision
from tests.helpers.methods import METHODS, read

torch = pytest.importorskip("torch", reason="PyTorch is an extra that the tests do not install")

X = np.array(jax.random.normal(jax.random.key(9), (4,)))
IMAGE = np.array(jax.random.normal(jax.random.key(8), (3, 8, 8)))
STEPS = np.array(jax.random.normal(jax.random.key(7), (6, 5)))
TOKENS = np.array([3, 1, 4, 1, 5])


class Picture(torch.nn.Module):
    """Batch norm with statistics, and a ReLU in place that is called twice."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(4)
        self.relu = torch.nn.ReLU(inplace=True)
        self.blocks = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=2), torch.nn.MaxPool2d(2))
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(36, 3)

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        x = self.relu(self.blocks(x))
        return self.head(self.dropout(x.flatten(1)))


class Transformer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(9, 8)
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.encoder = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = torch.nn.Linear(8, 3)

    def forward(self, tokens, mask=None):
        return self.head(self.encoder(self.embed(tokens), src_key_padding_mask=mask).mean(1))


class Recurrent(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = getattr(torch.nn, kind)(5, 4, 2, batch_first=True, bidirectional=kind == "LSTM")
        self.head = torch.nn.LazyLinear(3)

    def forward(self, x):
        return self.head(torch.tanh(self.cell(x)[0][:, -1]))


def mlp():
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.GELU(), torch.nn.Linear(5, 3))


def made(make, seed=0, example=None):
    """A module in training mode, all of whose parameters and statistics matter."""
    torch.manual_seed(seed)
    module = make()
    if example is not None:
        module(torch.from_numpy(example)[None])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if "running" in name:
                buffer.add_(torch.rand_like(buffer))
    return module.train()


def model_of(make=mlp, x=X, seed=0, **options):
    return jaxnn.from_torch(made(make, seed, x), x, **options)


KINDS = {
    "mlp": (mlp, X, "0"),
    "picture": (Picture, IMAGE, "conv"),
    "transformer": (Transformer, TOKENS, "embed"),
    "LSTM": (lambda: Recurrent("LSTM"), STEPS, "cell[0]"),
    "GRU": (lambda: Recurrent("GRU"), STEPS, "cell[0]"),
    "RNN": (lambda: Recurrent("RNN"), STEPS, "cell[0]"),
}


def by_torch(module, x, **kwargs):
    """The output in evaluation mode for one example."""
    module.eval()
    with torch.no_grad():
        return module(torch.from_numpy(x)[None], **kwargs)[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_the_output_is_pytorchs(kind):
    make, x, _ = KINDS[kind]
    module = made(make, example=x)
    model = jaxnn.from_torch(module, x)
    assert all(part.training for part in module.modules())
    assert torch.backends.mha.get_fastpath_enabled()
    other = x[::-1].copy()
    for each in (x, other):
        np.testing.assert_allclose(model(each), by_torch(module, each), rtol=2e-5, atol=2e-6)
    batch = jax.vmap(model)(jnp.stack([x, other]))
    np.testing.assert_allclose(batch[1], by_torch(module, other), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["mlp", "picture", "transformer"])
def test_names_and_values_are_those_of_the_submodules(kind):
    make, x, _ = KINDS[kind]
    module, expected = made(make, example=x), {}

    def note(path):
        def hook(part, args, output):
            if isinstance(output, torch.Tensor):
                expected.setdefault(path.replace(".", "/"), []).append(output[0].detach().numpy().copy())

        return hook

    model = jaxnn.from_torch(module, x)
    _, values = jaxnn.capture(model, x)
    for path, part in module.named_modules():
        if path:
            part.register_forward_hook(note(path))
    torch.backends.mha.set_fastpath_enabled(False)
    by_torch(module, x)
    torch.backends.mha.set_fastpath_enabled(True)
    numbered = {
        name + (f"@{i + 1}" if len(outputs) > 1 else ""): output
        for name, outputs in expected.items()
        for i, output in enumerate(outputs)
    }
    attention = {name for name in values if "self_attn" in name}  # a tuple
    assert set(values) - attention == set(numbered)
    for name, value in values.items():
        if name in numbered:
            np.testing.assert_allclose(value, numbered[name], rtol=1e-4, atol=1e-5, err_msg=name)
    if kind == "transformer":
        tapped = jaxnn.tap_operations(model, "softmax")
        weights = jaxnn.capture(tapped, x)[1]["encoder/layers/1/self_attn/softmax@0"]
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["mlp", "picture", "LSTM"])
def test_methods(kind, name):
    make, x, layer = KINDS[kind]
    if name == "grad_cam" and kind != "picture":
        pytest.skip("it needs maps")
    if name == "grad_cam":
        model = model_of(make, x)
        maps = attribution.grad_cam(model, x, 1, layer=layer, shape=(8, 8))
        assert maps.shape == (8, 8)
        return
    METHODS[name](model_of(make, x), jnp.asarray(x), layer)


def test_tokens_are_explained_at_their_embedding():
    model = model_of(Transformer, TOKENS)
    rest, embedding = jaxnn.split_at(model, TOKENS, "embed")
    found = attribution.deep_lift(rest, embedding, 1)
    change = rest(embedding)[1] - rest(jnp.zeros_like(embedding))[1]
    np.testing.assert_allclose(found.sum(), change, rtol=1e-4)
    layer = attribution.layer_integrated_gradients(
        model, TOKENS, 1, layer="embed", baseline=np.zeros_like(TOKENS), steps=100
    )
    assert layer.shape == (5, 8)


def test_equal_weights_give_equal_attributions_as_in_linen():
    class Same(nn.Module):
        @nn.compact
        def __call__(self, x):  # (rows, columns, channels)
            x = nn.relu(nn.BatchNorm(use_running_average=True)(nn.Conv(4, (3, 3))(x)))
            x = nn.max_pool(x[None], (2, 2), (2, 2))[0]
            return nn.Dense(3)(jnp.moveaxis(x, -1, 0).reshape(-1))

    def network():
        layers = (
            torch.nn.Conv2d(3, 4, 3, padding=1),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
        )
        return torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64, 3))

    ours = model_of(network, IMAGE)
    p, (buffers, _) = ours.params, ours.frozen.value
    variables = {
        "params": {
            "Conv_0": {"kernel": p["0.weight"].transpose(2, 3, 1, 0), "bias": p["0.bias"]},
            "BatchNorm_0": {"scale": p["1.weight"], "bias": p["1.bias"]},
            "Dense_0": {"kernel": p["5.weight"].T, "bias": p["5.bias"]},
        },
        "batch_stats": {"BatchNorm_0": {"mean": buffers["1.running_mean"], "var": buffers["1.running_var"]}},
    }
    theirs = jaxnn.from_linen(Same(), variables)
    last = np.moveaxis(IMAGE, 0, -1)
    np.testing.assert_allclose(ours(IMAGE), theirs(last), rtol=1e-5)
    for method in (
        attribution.saliency, attribution.integrated_gradients, attribution.deep_lift, attribution.lrp,
        attribution.guided_backprop, attribution.feature_ablation,
    ):  # fmt: skip
        found, expected = method(ours, IMAGE, 1), method(theirs, last, 1)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, jnp.moveaxis(expected, -1, 0), atol=1e-5 * scale, rtol=0)


def test_several_inputs_by_place_and_by_name():
    class Two(torch.nn.Module):
        def forward(self, b, a, scale=1.0):
            return {"sum": scale * a.sum(1) + b[:, 0], "parts": (a, [b])}

    a, b = X, 10 * X[:2]
    for x in ((b, a), {"a": a, "b": b}):
        found = jaxnn.from_torch(Two(), x, scale=2.0)(x)
        np.testing.assert_allclose(found["sum"], 2 * a.sum() + b[0], rtol=1e-5)
        np.testing.assert_allclose(found["parts"][1][0], b)


def test_keyword_arrays_are_frozen_leaves():
    module = made(Transformer)
    mask = np.array([[False, False, True, False, True]])
    model = jaxnn.from_torch(module, TOKENS, mask=mask)
    assert any(leaf.dtype == bool for leaf in jax.tree.leaves(model.frozen))
    expected = by_torch(module, TOKENS, mask=torch.from_numpy(mask))
    np.testing.assert_allclose(model(TOKENS), expected, rtol=2e-5, atol=2e-6)
    assert not np.allclose(expected, by_torch(module, TOKENS))


def test_a_module_without_a_batch_axis():
    module = made(mlp)
    model = jaxnn.from_torch(module, X, batched=False)
    np.testing.assert_allclose(model(X), by_torch(module, X), rtol=1e-5)
    assert {name: value.shape for name, value in jaxnn.capture(model, X)[1].items()} == {
        "0": (5,), "1": (5,), "2": (3,)
    }  # fmt: skip


@pytest.mark.without("check_tracer_leaks", "it turns off caches")
def test_new_weights_compile_nothing(caplog):
    models = [model_of(seed=seed) for seed in range(2)]
    assert jax.tree.structure(models[0]) == jax.tree.structure(models[1])
    first = read(models[0], X, "0")
    with jax.log_compiles(), caplog.at_level("WARNING"):
        second = read(models[1], X, "0")
    assert [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()] == []
    assert np.all(first[0] != second[0])


def test_later_training_of_the_module_changes_nothing():
    module = made(mlp)
    model = jaxnn.from_torch(module, X)
    before = np.asarray(model(X))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(model(X), before)


def test_training_changes_parameters_alone_and_they_go_back():
    module = made(Picture, example=IMAGE)
    model = jaxnn.from_torch(module, IMAGE)
    images = jax.random.normal(jax.random.key(3), (16, 3, 8, 8))
    after, history = jaxnn.train(
        model, images, jnp.zeros((16, 3)), epochs=4, batch_size=8, key=jax.random.key(1),
        optimizer=optax.adam(0.01),
    )  # fmt: skip
    assert history.loss[-1] < history.loss[0]
    jax.tree.map(np.testing.assert_array_equal, after.frozen.value, model.frozen.value)
    weights = {name: torch.tensor(np.asarray(value)) for name, value in after.params.items()}
    module.load_state_dict(weights, strict=False)
    np.testing.assert_allclose(after(IMAGE), by_torch(module, IMAGE), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_dtype_is_the_modules(dtype):
    with in_precision(dtype):
        module = made(Picture, example=IMAGE).to(getattr(torch, dtype))
        y, values = jaxnn.capture(jaxnn.from_torch(module, IMAGE), IMAGE)
        assert {leaf.dtype for leaf in jax.tree.leaves((y, values))} == {jnp.dtype(dtype)}
        expected = module.eval()(torch.from_numpy(IMAGE)[None].to(getattr(torch, dtype)))[0].detach()
        tolerance = 0.05 if dtype == "bfloat16" else 1e-12
        np.testing.assert_allclose(
            np.asarray(y, np.float64), expected.double(), rtol=tolerance, atol=tolerance
        )


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_detach_stops_gradients():
    model = jaxnn.from_torch(Function(lambda x: x.detach() * x), X)
    np.testing.assert_allclose(jax.grad(lambda x: model(x).sum())(X), X, rtol=1e-6)


@pytest.mark.parametrize("factor", [1.25, 1.3, 2.2, 0.6])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_resizing_by_a_factor(factor, mode):
    image = IMAGE[:, :3, :4].copy()
    module = torch.nn.Upsample(scale_factor=factor, mode=mode)
    np.testing.assert_allclose(
        jaxnn.from_torch(module, image)(image), by_torch(module, image), rtol=1e-5, atol=1e-6
    )


def test_several_outputs_are_named_by_their_place():
    class Two(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

        def forward(self, x):
            x = self.first(x)
            return {"last": self.second(x).relu(), "others": (x,)}

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.two = Two()

        def forward(self, x):
            found = self.two(x)
            return found["last"] + found["others"][0]

    module = made(Outer)
    values = jaxnn.capture(jaxnn.from_torch(module, X), X)[1]
    assert set(values) == {"two/first", "two/second", "two['last']", "two['others'][0]"}
    expected = by_torch(module.two.first, X)
    np.testing.assert_allclose(values["two['others'][0]"], expected, rtol=1e-5, atol=1e-6)
    assert not module.two._forward_hooks


def test_numbers_without_axes_keep_the_dtype():
    module = Function(lambda x: x * torch.tensor(2.0))
    module.register_buffer("kind", torch.ones(1, dtype=torch.bfloat16))
    assert jaxnn.from_torch(module, X)(X).dtype == jnp.bfloat16


def test_a_mask_may_assign_one_value():
    def clipped(x):
        x = x.clone()
        x[x > 0] = 0.0
        return x

    np.testing.assert_allclose(jaxnn.from_torch(Function(clipped), X)(X), np.minimum(X, 0))


def test_parameters_and_buffers_may_share_memory():
    module = torch.nn.Linear(2, 2)
    module.register_buffer("same", module.weight.data)
    assert set(jaxnn.from_torch(module, X[:2]).params) == {"weight", "bias"}


def without_gradients(x):
    with torch.no_grad():
        y = 2 * x
    return y * x


def test_shared_parameters_are_one():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Linear(4, 4)
            self.second = torch.nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    model = model_of(Tied)
    assert len(model.params) == 3
    np.testing.assert_allclose(model(X), by_torch(made(Tied), X), rtol=1e-5)


def test_a_model_is_pickled_without_pytorch():
    model = model_of(Picture, IMAGE)
    again = pickle.loads(pickle.dumps(jax.tree.leaves(model)))  # noqa: S301
    np.testing.assert_array_equal(jax.tree.unflatten(jax.tree.structure(model), again)(IMAGE), model(IMAGE))


class ByValue(torch.nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Unknown(torch.nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


class Scalar(torch.nn.Module):
    def forward(self, x):
        return x.sum()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: jaxnn.from_torch(3, X), TypeError, "`module` must be a torch.nn.Module; got int"),
        (lambda: jaxnn.from_torch(torch.nn.Linear, X), TypeError, "got the class Linear, not made yet"),
        (lambda: jaxnn.from_torch(mlp(), X, batched=1), TypeError, "`batched` must be True or False"),
        (lambda: jaxnn.from_torch(mlp(), "four"), TypeError, "`example`"),
        (lambda: jaxnn.from_torch(mlp(), X[:3]), ValueError, "`module` must be one that torch.export takes"),
        (lambda: jaxnn.from_torch(ByValue(), X), ValueError, "`module` must be one that torch.export takes"),
        (lambda: jaxnn.from_torch(Unknown(), X), ValueError, "it has special_bessel_j0.default"),
        (lambda: jaxnn.from_torch(Function(without_gradients), X), ValueError, "torch.no_grad"),
        (lambda: jaxnn.from_torch(Scalar(), X), ValueError, "`batched` needs a module whose output"),
        (lambda: jaxnn.from_torch(mlp(), X, flag={1}), TypeError, "`kwargs` must hold arrays, numbers"),
        (lambda: jaxnn.from_torch(mlp(), {"a": X}, a=1), ValueError, "got 'a' in both"),
        (lambda: model_of()(X[:3]), ValueError, r"`x` must have the shapes of `example`, \[\(4,\)\]"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
