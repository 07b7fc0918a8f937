"""Types of arguments: models, targets, and a `Literal` for every option that is given by name."""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
import numpy.typing as npt

PyTree: TypeAlias = Any
"""A pytree of arrays; the docstring says of which structure."""

Scalar: TypeAlias = float | np.ndarray | np.generic | jax.Array
"""A number, which may be traced."""

Key: TypeAlias = jax.Array
"""One random key: `jax.random.key(0)`, or the old kind, uint32 of shape `(2,)`."""

Model: TypeAlias = Callable[[Any], Any]
"""A callable pytree of one example, `model(x) -> y`."""

Target: TypeAlias = int | np.integer[Any] | jax.Array | tuple[Any, ...] | Callable[[Any], Any] | None
"""An output index, a tuple of them, a function from the output to a scalar, or None for a scalar output."""

Layer: TypeAlias = str | tuple[Any, ...]
"""The name of an intermediate; of one inside of a `lax.scan` also `(name, step)`, its value at one step."""

Labels: TypeAlias = int | npt.ArrayLike | jax.Array
"""Integer class labels: one of shape `()`, or `(N,)`."""

Examples: TypeAlias = tuple[PyTree, PyTree]
"""A set or a batch of examples: `(inputs, targets)`, pytrees of arrays `(N, ...)`."""

Loss: TypeAlias = Callable[[Any, Any], jax.Array]
"""A loss of one example, `loss(output, target) -> scalar`."""

Norm = Literal["linf", "l2", "l1"]
Quadrature = Literal["gauss_legendre", "riemann_left", "riemann_right", "riemann_middle", "trapezoid"]
ActivationName = Literal[
    "sigmoid", "tanh", "relu", "leaky_relu", "softplus", "elu", "gelu", "softmax", "identity"
]
CamWeights = Literal[
    "gradcam", "gradcam++", "xgradcam", "layercam", "hirescam", "eigencam", "ablationcam", "scorecam"
]
BackqueryMethod = Literal["transpose", "least_squares", "pattern", "typical"]
AttackLoss = Literal["cross_entropy", "margin", "dlr"]
NoiseKind = Literal["uniform", "gaussian"]
ProbabilityActivation = Literal["softmax", "sigmoid"]
DatasetName = Literal["mnist-5k", "mnist", "digits"]
PointSetName = Literal["circles", "exclusive-or", "gaussians", "spiral"]
