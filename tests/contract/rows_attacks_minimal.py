"""Rows of the contract for the attacks that look for the nearest input, and those without gradients.

Few steps: they are compiled for every promise, and each one more lets roundings grow. The criterion is a
function, so that no random network has fulfilled it already; its margin has no ties.
"""

import functools

import numpy as np

from jaxnn import attacks

OLD_KEY = np.array([0, 3], np.uint32)  # the check of keys used twice lets it be used by every call


def _more(y):
    """The first output is above the third by more than a twentieth."""
    return y[0] - y[2] - 0.05


def _found(method, network, x, **options):
    """The input that was found, and its distance; the others are a truth value and a count."""
    found = method(network, x, _more, key=OLD_KEY, **options)
    return [found.input, found.distance]


ROWS = {
    "deepfool": (functools.partial(_found, attacks.deepfool, steps=2), (100,)),
    "deepfool linf": (functools.partial(_found, attacks.deepfool, steps=2, norm="linf"), (100,)),
    "carlini_wagner": (
        functools.partial(_found, attacks.carlini_wagner, steps=3, search_steps=2, initial_constant=10.0),
        (100,),
    ),
    "fmn": (functools.partial(_found, attacks.fmn, steps=2), (100,)),
    "square": (
        functools.partial(_found, attacks.square, epsilon=0.05, queries=4, image_shape=(10, 10)),
        (100,),
    ),
    "hop_skip_jump": (
        functools.partial(_found, attacks.hop_skip_jump, queries=40, initial_evaluations=10, batch_size=5),
        (100,),
    ),
    "minimal_norm": (
        functools.partial(_found, attacks.minimal_norm, attack=attacks.fgsm, epsilon=0.4, steps=3),
        (100,),
    ),
}
