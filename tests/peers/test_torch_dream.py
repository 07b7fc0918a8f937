"""A dream beside the same loop in PyTorch: its Adam, its gradients, from the same start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import dreaming

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 2.0)])
def test_a_dream_equals_the_same_loop_in_pytorch(bounds):
    low, high = bounds
    network = jaxnn.init(jax.random.key(0), (36, 12, 4), bias_init=jax.nn.initializers.normal(0.1))
    share = np.random.default_rng(0).uniform(0.1, 0.9, (6, 6)).astype(np.float32)
    ours = jaxnn.dream(
        dreaming.flattened(network), dreaming.logit(2) - dreaming.logit(1), key=jax.random.key(1),
        shape=(6, 6), bounds=bounds, start=low + (high - low) * share, parameterization=dreaming.pixel(),
        transforms=(), penalties=(dreaming.total_variation(3.0), dreaming.l2(2.0, center=0.5)), steps=60,
    )  # fmt: skip

    layers = [tuple(torch.from_numpy(np.array(a)) for a in (d.kernel, d.bias)) for d in network.layers]
    raw = torch.logit(torch.from_numpy(share)).requires_grad_()
    optimizer = torch.optim.Adam([raw], lr=0.05)
    trace = []
    for _ in range(61):
        image = low + (high - low) * torch.sigmoid(raw)
        (first, first_bias), (second, second_bias) = layers
        logits = torch.sigmoid(image.ravel() @ first + first_bias) @ second + second_bias
        rough = sum(torch.diff(image, dim=axis).abs().sum() for axis in (0, 1)) / 36
        value = logits[2] - logits[1]
        trace.append(float(value.detach()))
        if len(trace) == 61:
            break
        optimizer.zero_grad()
        (3.0 * rough + 2.0 * ((image - 0.5) ** 2).mean() - value).backward()
        optimizer.step()
    np.testing.assert_allclose(ours.trace, trace[:-1], atol=2e-3)
    np.testing.assert_allclose(ours.value, trace[-1], atol=2e-3)
    np.testing.assert_allclose(ours.image, image.detach().numpy(), atol=5e-3)
    assert jnp.abs(ours.image - (low + (high - low) * share)).max() > 0.3  # it went somewhere
