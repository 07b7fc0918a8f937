"""Attacks by the gradient beside Foolbox, on equal weights and the same 256 digits."""

import functools

import jax
import numpy as np
import pytest

foolbox = pytest.importorskip("foolbox")
torch = pytest.importorskip("torch")

from foolbox import attacks as theirs  # noqa: E402

from jaxnn import attacks  # noqa: E402
from tests.peers.digit_networks import both  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
RADII = {"linf": [0.02, 0.05, 0.1, 0.2], "l2": [0.3, 0.7, 1.2, 2.0]}
ATTACKS = {
    ("pgd", "linf"): theirs.LinfPGD(steps=40, rel_stepsize=0.01 / 0.3),
    ("pgd", "l2"): theirs.L2PGD(steps=50, rel_stepsize=0.025),
    ("fgsm", "linf"): theirs.LinfFastGradientAttack(),
    ("fgsm", "l2"): theirs.L2FastGradientAttack(),
}
POINT = 0.01


@pytest.mark.parametrize("kind", ["dense", "convolutional"])
@pytest.mark.parametrize(
    ("name", "norm"),
    [pytest.param(*pair, marks=[pytest.mark.long] * (pair[0] == "fgsm")) for pair in ATTACKS],
)
def test_robust_accuracy_is_no_more_than_a_point_above_theirs(kind, name, norm):
    network, torch_network, x, labels = both(kind)
    torch.manual_seed(0)
    model = foolbox.PyTorchModel(torch_network, bounds=(0, 1), device="cpu")
    given = torch.from_numpy(x.copy()), torch.from_numpy(labels).long()
    _, _, broken = ATTACKS[name, norm](model, *given, epsilons=RADII[norm])
    expected = 1 - broken.float().mean(dim=1).numpy()

    attack = functools.partial(getattr(attacks, name), norm=norm)
    found = np.array([  # one radius at a time: no help from a smaller one
        attacks.robust_accuracy(network, x, labels, attack, radius, batch_size=64, key=jax.random.key(0))
        for radius in RADII[norm]
    ])  # fmt: skip
    print(kind, name, norm, "ours", found.round(3), "Foolbox", expected.round(3))
    assert (found <= expected + POINT).all()
    assert expected.max() > 0.2
    if name == "fgsm":  # nothing is drawn: the same examples are broken
        np.testing.assert_allclose(found, expected, atol=POINT)
