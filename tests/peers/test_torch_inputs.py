"""Tensors of PyTorch as data, and models in PyTorch, which are refused by name."""

import functools

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import jaxnn  # noqa: E402
from jaxnn import attacks, attribution, dreaming, losses, rules  # noqa: E402
from tests.peers.equal_weights import SIZES, dense, examples  # noqa: E402
from tests.test_arrays import KEY, NET, ONE, SETS, SGD, X, Y  # noqa: E402

ENTRIES = {
    **ONE,
    **SETS,
    "kernel_shap": lambda f: attribution.kernel_shap(NET, f(X[0]), f(Y)[0], key=KEY, n_samples=20),
    "lime": lambda f: attribution.lime(NET, f(X[0]), 1, key=KEY, n_samples=20, baseline=f(X[1])),
    "occlusion": lambda f: attribution.occlusion(NET, f(X[0]), 1, window=(2,), baseline=f(X[1])),
    "lrp": lambda f: attribution.lrp(NET, f(X[0]), 1, epsilon=f(np.array(1e-6))),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_tensors_are_arrays(name):
    expected = ENTRIES[name](lambda array: array)
    np.testing.assert_allclose(ENTRIES[name](torch.tensor), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda x: x.requires_grad_(), r"a Tensor gave: .* Use tensor.detach\(\)"),
        (torch.nn.Parameter, r"a Parameter gave: .* Use tensor.detach\(\)"),
        (lambda x: x.to("meta"), "a Tensor gave: can't convert meta"),
        (lambda x: x.to_sparse(), r"a Tensor gave: can't convert Sparse layout tensor to numpy\. Use Tensor"),
        (lambda x: x.bfloat16(), "a Tensor gave: Got unsupported ScalarType BFloat16"),
    ],
)
def test_a_tensor_that_is_no_array_says_why(convert, message):
    with pytest.raises(TypeError, match="`x` must become an array of numbers; " + message):
        attribution.saliency(NET, convert(torch.tensor(X[0])), 1)


def test_a_data_loader_is_a_source_of_batches():
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    batches = [(X[:4], Y[:4]), (X[4:], Y[4:])]
    losses_of = [
        jaxnn.train(NET, each, loss=losses.cross_entropy, **SGD)[1].loss for each in (loader, batches)
    ]
    np.testing.assert_array_equal(*losses_of)


MODULE = torch.nn.Linear(4, 3)
FUNCTIONAL = functools.partial(torch.func.functional_call, MODULE, dict(MODULE.named_parameters()))
MODELS = {
    "a module": (MODULE, "be a Linear of torch"),
    "its method": (MODULE.forward, "be a Linear of torch"),
    "its functional form": (FUNCTIONAL, "be a Linear of torch"),
    "a closure": (lambda x: MODULE(x), "use the variable `MODULE`, a Linear of torch"),
    "weights": (
        lambda x, w=MODULE.weight: w @ x,
        "be a Parameter of torch|use the variable `model`, a Parameter",
    ),
}
METHODS = {
    "saliency": lambda f, x: attribution.saliency(f, x[0], 1),
    "integrated_gradients": lambda f, x: attribution.integrated_gradients(f, x[0], 1),
    "kernel_shap": lambda f, x: attribution.kernel_shap(f, x[0], 1, key=KEY, n_samples=40),
    "lime": lambda f, x: attribution.lime(f, x[0], 1, key=KEY, n_samples=20),
    "occlusion": lambda f, x: attribution.occlusion(f, x[0], 1, window=(2,)),
    "fgsm": lambda f, x: attacks.fgsm(f, x[0], 1, epsilon=0.1),
    "distill_tree": lambda f, x: rules.distill_tree(f, x, held_out=x, key=KEY, n_samples=20),
    "linear_region": lambda f, x: rules.linear_region(f, x[0]),
    "capture": lambda f, x: jaxnn.capture(f, x[0]),
    "map_examples": lambda f, x: jaxnn.map_examples(f, x, batch_size=4),
    "train": lambda f, x: jaxnn.train(f, x, torch.tensor(Y), batch_size=4, key=KEY, **SGD),
    "dream": lambda f, x: jaxnn.dream(f, dreaming.logit(1), key=KEY, shape=(4,), steps=1),
}


@pytest.mark.parametrize("method", METHODS)
def test_models_in_torch_are_refused_by_name(method):
    for model, message in MODELS.values():
        with pytest.raises(TypeError, match=rf"must not ({message}).*jaxnn\.from_numpy\(function, shape\)"):
            METHODS[method](model, torch.tensor(X))


def test_weights_in_torch_are_refused_by_name():
    kernel, bias = MODULE.weight.detach().T, MODULE.bias.detach()
    network = jaxnn.Network((jaxnn.Dense(kernel, bias, "identity"),))
    with pytest.raises(
        TypeError, match=r"`network` must be a pytree of arrays; its leaf .*kernel is a Tensor"
    ):
        jaxnn.query(network, X)
    for model in (network, jax.tree_util.Partial(lambda w, x: x @ w, kernel)):
        with pytest.raises(TypeError, match="`model` must be a pytree of arrays; its leaf .* is a Tensor"):
            attribution.saliency(model, X[0], 1)
    with pytest.raises(TypeError, match="`key` must be one random key"):
        attribution.kernel_shap(NET, X[0], 1, key=torch.tensor(0))


@pytest.mark.parametrize("method", ["kernel_shap", "lime", "occlusion", "map_examples"])
def test_a_module_is_evaluated_by_from_numpy(method):
    network, module = dense(0)
    model = jaxnn.from_numpy(lambda rows: module(torch.from_numpy(rows)).detach(), SIZES[-1])
    x = torch.tensor(examples(4, SIZES[:1]))
    expected = METHODS[method](network, x)
    np.testing.assert_allclose(METHODS[method](model, x), expected, atol=1e-4)
