"""Rows of the contract for the parts of dreams: objectives, parameterizations, transforms and penalties."""

import functools

import jax
import numpy as np

import jaxnn
from jaxnn import dreaming

OLD_KEY = np.array([0, 3], np.uint32)  # the check of keys used twice lets it be used by every call
SIDE = (10, 10)
INPUTS = np.random.default_rng(2).uniform(0, 1, (40, *SIDE)).astype(np.float32)
PRIOR = jaxnn.prior(INPUTS, components=2, rank=3, key=jax.random.key(9))


def _value(objective, network, x):
    return objective(*jaxnn.capture(network, x))


def _objective(method, *args, **options):
    return functools.partial(_value, method(*args, **options)), (100,)


def _channels(network, x):
    """The second of five channels of a map of 2 x 2 places."""
    return dreaming.channel("map", 1)(*jaxnn.capture(jax.tree_util.Partial(_map, network), x))


def _map(network, x):
    return jaxnn.tap(network(x)[:1] * x[:20].reshape(2, 2, 5), "map")


def _transform(part):
    return lambda network, image: part(OLD_KEY, image), SIDE


def _penalty(part):
    return lambda network, image: part(image), SIDE


def _inverted(parameterization):
    """An image that a parameterization makes of the parameters that make it."""
    return lambda network, image: parameterization.image(parameterization.invert(image), SIDE), SIDE


def _prior(image):
    """A prior over images near gray, in the precision of the image."""
    return jax.tree.map(lambda leaf: leaf.astype(image.dtype), PRIOR)


def _from_prior(network, image):
    raw = jax.scipy.special.logit(image)
    return _inverted(dreaming.from_prior(_prior(image)))[0](network, raw)


def _cppn(network, image):
    made = dreaming.cppn(4, 2)
    return image * made.image(made.init(OLD_KEY, SIDE, image.dtype), SIDE)


ROWS = {
    "logit": _objective(dreaming.logit, 1),
    "probability": _objective(dreaming.probability, 1),
    "neuron": _objective(dreaming.neuron, "hidden_0", 3),
    "channel": (_channels, (100,)),
    "layer": _objective(dreaming.layer, "hidden_0"),
    "deepdream": _objective(dreaming.deepdream, "hidden_0"),
    "direction": _objective(dreaming.direction, "hidden_0", np.linspace(-1, 1, 20)),
    "matching": _objective(dreaming.matching, "hidden_0", np.linspace(0, 1, 20)),
    "flattened": (lambda network, image: dreaming.flattened(network)(image), SIDE),
    "pixel": _inverted(dreaming.pixel()),
    "fourier": _inverted(dreaming.fourier()),
    "from_prior": (_from_prior, SIDE),
    "cppn": (_cppn, SIDE),
    "jitter": _transform(dreaming.jitter(2)),
    "scale": _transform(dreaming.scale()),
    "rotate": _transform(dreaming.rotate()),
    "pad": _transform(dreaming.pad(2, fill=0.5)),
    "dreaming.blur": _transform(dreaming.blur(1.0)),
    "dreaming.noise": _transform(dreaming.noise()),
    "l1": _penalty(dreaming.l1()),
    "l2": _penalty(dreaming.l2()),
    "distance": _penalty(dreaming.distance(np.full(SIDE, 0.4))),
    "typicality": (lambda network, image: dreaming.typicality(_prior(image))(image), SIDE),
    "total_variation": _penalty(dreaming.total_variation()),
}
