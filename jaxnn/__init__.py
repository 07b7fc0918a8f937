"""Look inside neural networks: pure JAX functions that run a model forwards and backwards."""

import typing as _t

from jaxnn import (
    attacks as attacks,
    attribution as attribution,
    datasets as datasets,
    dreaming as dreaming,
    losses as losses,
    quality as quality,
    rules as rules,
    weights as weights,
)
from jaxnn._activation import Activation as Activation, activation as activation, rescale as rescale
from jaxnn._adapters import (
    from_equinox as from_equinox,
    from_haiku as from_haiku,
    from_keras as from_keras,
    from_linen as from_linen,
    from_nnx as from_nnx,
    from_numpy as from_numpy,
    from_torch as from_torch,
)
from jaxnn._backquery import TypicalInput as TypicalInput, backquery as backquery
from jaxnn._checks import require as _require
from jaxnn._explain import Explanation as Explanation, ExplanationPart as ExplanationPart, explain as explain
from jaxnn._for_cpu import for_cpu as for_cpu
from jaxnn._map import map_examples as map_examples
from jaxnn._network import Dense as Dense, Network as Network, init as init, query as query
from jaxnn._operations import tap_operations as tap_operations
from jaxnn._prior import Prior as Prior, prior as prior
from jaxnn._rewrite import (
    capture as capture,
    intervene as intervene,
    rewrite as rewrite,
    tap as tap,
)
from jaxnn._serialization import load as load, save as save
from jaxnn._split import split_at as split_at
from jaxnn._summary import Summary as Summary, SummaryRow as SummaryRow, summary as summary
from jaxnn._training.history import History as History, TrainingDivergedError as TrainingDivergedError
from jaxnn._training.train import train as train
from jaxnn.dreaming._dream import Dream as Dream, dream as dream

if _t.TYPE_CHECKING:
    from jaxnn import plot as plot

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # `jaxnn.plot` needs matplotlib, which the core does not: it is imported on first use.
    if name == "plot":
        return _require("jaxnn.plot", "`jaxnn.plot`", "plot")
    raise AttributeError(f"module 'jaxnn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "plot"})
