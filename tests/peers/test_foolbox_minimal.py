"""Attacks for the nearest input beside Foolbox, on equal weights and the same 256 digits."""

import functools

import jax
import jax.numpy as jnp
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
ORDER = {"l2": 2, "linf": np.inf, "l1": 1}
kinds = pytest.mark.parametrize("kind", ["dense", "convolutional"])


def _theirs(attack, network, x, labels, norm, **run):
    """Foolbox's distances, infinite where it fails, and how often it asked the network for each example."""
    asked = []

    class Counted(torch.nn.Module):
        def forward(self, x):
            asked.append(len(x))
            return network(x)

    model = foolbox.PyTorchModel(Counted().eval(), bounds=(0, 1), device="cpu")
    inputs, labels = torch.from_numpy(np.array(x)), torch.from_numpy(np.array(labels)).long()
    found = attack.run(model, inputs, foolbox.criteria.Misclassification(labels), **run)
    queries = sum(asked) / len(x)
    fooled = network(found).argmax(1).numpy() != labels.numpy()
    sizes = np.linalg.norm(found.detach().numpy() - x, ORDER[norm], axis=1)
    return np.where(fooled, sizes, np.inf), queries


def _ours(attack, network, x, labels, **options):
    """Our distances, infinite where it fails."""
    keys = jax.random.split(jax.random.key(0), len(x))
    call = lambda x, label, key: attack(network, x, label, key=key, **options)  # noqa: E731
    found = jax.jit(jax.vmap(call))(jnp.asarray(x), jnp.asarray(labels), keys)
    return np.where(found.success, found.distance, np.inf)


@kinds
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_deepfool(kind, norm):
    network, torch_network, x, labels = both(kind)
    attack = {"l2": theirs.L2DeepFoolAttack, "linf": theirs.LinfDeepFoolAttack}[norm]()
    expected, _ = _theirs(attack, torch_network, x, labels, norm)
    found = _ours(attacks.deepfool, network, x, labels, norm=norm)
    assert np.all(np.isfinite(found))
    assert np.median(found) == pytest.approx(np.median(expected), rel=0.02)


@kinds
def test_fmn_linf(kind):
    network, torch_network, x, labels = both(kind)
    expected, _ = _theirs(theirs.LInfFMNAttack(), torch_network, x, labels, "linf")
    found = _ours(attacks.fmn, network, x, labels, norm="linf")
    assert np.all(np.isfinite(found))
    assert np.median(found) == pytest.approx(np.median(expected), rel=0.02)


@kinds
def test_fmn_l2_projects_where_foolbox_does_not(kind):
    """Foolbox 3.3.4 divides a norm by itself in the projection onto the l2 ball: its change is never cut."""
    network, torch_network, x, labels = both(kind)
    expected, _ = _theirs(theirs.L2FMNAttack(), torch_network, x, labels, "l2")
    found = _ours(attacks.fmn, network, x, labels, norm="l2")
    assert np.all(np.isfinite(found))
    assert np.median(found) < np.median(expected) * 1.02


@kinds
def test_fmn_l1_succeeds_where_foolbox_does_not(kind):
    """The paper's first radius ends on the boundary: there Foolbox's stays for one image in three."""
    network, torch_network, x, labels = both(kind)
    x, labels = x[:64], labels[:64]
    expected, _ = _theirs(theirs.L1FMNAttack(), torch_network, x, labels, "l1")
    found = _ours(attacks.fmn, network, x, labels, norm="l1")
    assert np.all(np.isfinite(found))
    assert np.median(found) < np.median(expected) * 1.02
    succeeds = np.isfinite(expected)
    assert np.median(found[succeeds]) < np.median(expected[succeeds]) * 1.05


@kinds
@pytest.mark.long
def test_carlini_wagner(kind):
    network, torch_network, x, labels = both(kind)
    x, labels = x[:64], labels[:64]
    expected, _ = _theirs(theirs.L2CarliniWagnerAttack(steps=200), torch_network, x, labels, "l2")
    found = _ours(attacks.carlini_wagner, network, x, labels, steps=200)
    assert np.all(np.isfinite(found))
    assert np.median(found) <= np.median(expected)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.long
def test_hop_skip_jump(norm):
    """One image at a time: in a batch Foolbox 3.3.4 divides a slope by the length of all slopes together."""
    network, torch_network, x, labels = both("dense")
    answers = np.asarray(jax.vmap(network)(x)).argmax(axis=1)
    usable = (answers == labels) & (np.roll(answers, -1) == np.roll(labels, -1))
    usable &= labels != np.roll(labels, -1)
    starts, x, labels = (a[usable][:48] for a in (np.roll(x, -1, axis=0), x, labels))
    attack = theirs.HopSkipJumpAttack(steps=6, constraint=norm)
    one = functools.partial(_theirs, attack, torch_network, norm=norm)
    each = [
        one(x[i : i + 1], labels[i : i + 1], starting_points=torch.from_numpy(starts[i : i + 1].copy()))
        for i in range(len(x))
    ]
    expected, queries = np.array([sizes[0] for sizes, _ in each]), int(np.mean([q for _, q in each]))
    keys = jax.random.split(jax.random.key(0), len(x))
    call = lambda x, label, start, key: attacks.hop_skip_jump(  # noqa: E731
        network, x, label, start=start, key=key, norm=norm, queries=queries
    )
    found = jax.jit(jax.vmap(call))(*(jnp.asarray(a) for a in (x, labels, starts)), keys)
    assert np.all(found.success)
    assert np.max(found.queries) <= queries
    assert np.median(found.distance) <= 1.1 * np.median(expected)
