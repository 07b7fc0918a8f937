"""Values that must not be taken: one argument of a valid call of each public function is wrong at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnn
from jaxnn import attacks, attribution, losses, rules
from tests.helpers.calls import KEY, NET, Call, X, Y, calls

WIDE = 2**32 + 1  # 1, cut to 32 bits
FITS = "must hold numbers that fit into JAX's( u?int32)?; got"
CALLS = pytest.mark.parametrize("name", sorted(calls()))


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
