"""Feature visualization: the objectives, parameterizations, transforms and penalties of `jaxnn.dream`.

Objectives are functions of a model's output and intermediates, to be maximized. Parameterizations generate
the image from parameters. Transforms augment the image at each step, and penalties regularize it.

Start reading at `_dream.py` (`dream`, the loop), then `_problem.py` (the optimization problem, its checks).
"""

from jaxnn.dreaming._layer_objectives import (
    deepdream as deepdream,
    direction as direction,
    diversity as diversity,
    layer as layer,
    matching as matching,
)
from jaxnn.dreaming._model import flattened as flattened
from jaxnn.dreaming._objective import Objective as Objective
from jaxnn.dreaming._parameterizations import (
    Parameterization as Parameterization,
    cppn as cppn,
    fourier as fourier,
    from_prior as from_prior,
    pixel as pixel,
)
from jaxnn.dreaming._penalties import (
    distance as distance,
    l1 as l1,
    l2 as l2,
    total_variation as total_variation,
    typicality as typicality,
)
from jaxnn.dreaming._transforms import (
    blur as blur,
    jitter as jitter,
    noise as noise,
    pad as pad,
    rotate as rotate,
    scale as scale,
    standard_transforms as standard_transforms,
)
from jaxnn.dreaming._unit_objectives import (
    channel as channel,
    logit as logit,
    neuron as neuron,
    probability as probability,
)
