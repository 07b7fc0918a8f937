"""Adapters: make a model of one example from a module of another library, with named intermediates.

Each adapter has the module's arrays as leaves of a pytree and everything else as static data, so two
modules of one structure share their compiled programs. Linen and Haiku have interceptors, which name
outputs; of NNX and Equinox a copy of the module is called, whose submodules name theirs; Keras has neither,
and `keras` says what is done there. Of PyTorch a graph of operators is exported, which `aten` has in JAX. The
module itself is never changed. There is one file per library; start with `linen`, the simplest. `common` has
the parts that all use. A function in NumPy has no arrays that JAX sees: it is static altogether.
"""

from jaxnn._adapters.equinox import from_equinox as from_equinox
from jaxnn._adapters.haiku import from_haiku as from_haiku
from jaxnn._adapters.keras import from_keras as from_keras
from jaxnn._adapters.linen import from_linen as from_linen
from jaxnn._adapters.nnx import from_nnx as from_nnx
from jaxnn._adapters.numpy_function import from_numpy as from_numpy
from jaxnn._adapters.torch import from_torch as from_torch
