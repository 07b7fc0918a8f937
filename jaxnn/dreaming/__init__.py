"""What `jaxnn.dream` is composed of: objectives, parameterizations, transforms and penalties."""

from jaxnn.dreaming._model import flattened as flattened
from jaxnn.dreaming._objective import Objective as Objective
from jaxnn.dreaming._objectives import (
    channel as channel,
    deepdream as deepdream,
    direction as direction,
    diversity as diversity,
    layer as layer,
    logit as logit,
    matching as matching,
    neuron as neuron,
    probability as probability,
)
from jaxnn.dreaming._parameterizations import (
    Parameterization as Parameterization,
    cppn as cppn,
    fourier as fourier,
    pixel as pixel,
)
from jaxnn.dreaming._penalties import (
    distance as distance,
    l1 as l1,
    l2 as l2,
    total_variation as total_variation,
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
