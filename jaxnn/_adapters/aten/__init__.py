"""The operators of exported PyTorch graphs (core ATen), as functions of JAX.

Each has the parameters of the operator, in its order and with its defaults, and returns what it returns: a
tuple where the graph takes elements of it. Two further values of a normalization or a pooling, which only
its derivative needs, are left out. Normalizations, softmax and activations are written as in Flax and
`jax.nn`, by which the methods that walk back recognize them. Each file adds its operators to `OPERATORS`.
"""

from jaxnn._adapters.aten import elementwise, layers, shapes, windows  # noqa: F401  # they register
from jaxnn._adapters.aten.recurrent import RECURRENT as RECURRENT
from jaxnn._adapters.aten.registry import OPERATORS as OPERATORS, dtype_of as dtype_of
