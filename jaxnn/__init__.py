"""Look inside neural networks: pure JAX functions that run a model forwards and backwards."""

import importlib
from typing import TYPE_CHECKING, Any

from jaxnn import attacks as attacks
from jaxnn import attribution as attribution
from jaxnn import datasets as datasets
from jaxnn import dreaming as dreaming
from jaxnn import losses as losses
from jaxnn import rules as rules
from jaxnn import weights as weights
from jaxnn._activation import (
    Activation as Activation,
)
from jaxnn._activation import (
    activation as activation,
)
from jaxnn._activation import (
    rescale as rescale,
)
from jaxnn._adapters import from_equinox as from_equinox
from jaxnn._adapters import from_linen as from_linen
from jaxnn._adapters import from_nnx as from_nnx
from jaxnn._backquery import backquery as backquery
from jaxnn._checkpoint import load as load
from jaxnn._checkpoint import save as save
from jaxnn._dream import Dream as Dream
from jaxnn._dream import dream as dream
from jaxnn._map import map_examples as map_examples
from jaxnn._network import Dense as Dense
from jaxnn._network import Network as Network
from jaxnn._network import init as init
from jaxnn._network import query as query
from jaxnn._rewrite import (
    capture as capture,
)
from jaxnn._rewrite import (
    intervene as intervene,
)
from jaxnn._rewrite import (
    rewrite as rewrite,
)
from jaxnn._rewrite import (
    tap as tap,
)
from jaxnn._train import (
    History as History,
)
from jaxnn._train import (
    TrainingDivergedError as TrainingDivergedError,
)
from jaxnn._train import (
    train as train,
)

if TYPE_CHECKING:
    from jaxnn import plot as plot

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # `jaxnn.plot` needs matplotlib, which the core does not: it is imported when first asked for.
    if name == "plot":
        return importlib.import_module("jaxnn.plot")
    raise AttributeError(f"module 'jaxnn' has no attribute {name!r}")
