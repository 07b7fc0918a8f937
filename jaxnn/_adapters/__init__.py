"""Adapters: turn a module of another library into a model of one example, its intermediates named.

Each adapter holds the module's arrays as leaves of a pytree and everything else as static data, so two
modules of one structure share their compiled programs. The module itself is never changed. One file per
library; start with `linen`, the simplest, and see `common` for what they share.
"""

from jaxnn._adapters.equinox import from_equinox as from_equinox
from jaxnn._adapters.linen import from_linen as from_linen
from jaxnn._adapters.nnx import from_nnx as from_nnx
