"""What `jaxnn.dream` is composed of: objectives, parameterizations, transforms and penalties."""

from jaxnn.dreaming._model import flattened as flattened
from jaxnn.dreaming._objective import Objective as Objective
from jaxnn.dreaming._objectives import channel as channel
from jaxnn.dreaming._objectives import deepdream as deepdream
from jaxnn.dreaming._objectives import direction as direction
from jaxnn.dreaming._objectives import diversity as diversity
from jaxnn.dreaming._objectives import layer as layer
from jaxnn.dreaming._objectives import logit as logit
from jaxnn.dreaming._objectives import matching as matching
from jaxnn.dreaming._objectives import neuron as neuron
from jaxnn.dreaming._objectives import probability as probability
from jaxnn.dreaming._parameterizations import Parameterization as Parameterization
from jaxnn.dreaming._parameterizations import cppn as cppn
from jaxnn.dreaming._parameterizations import fourier as fourier
from jaxnn.dreaming._parameterizations import pixel as pixel
from jaxnn.dreaming._penalties import distance as distance
from jaxnn.dreaming._penalties import l1 as l1
from jaxnn.dreaming._penalties import l2 as l2
from jaxnn.dreaming._penalties import total_variation as total_variation
from jaxnn.dreaming._transforms import blur as blur
from jaxnn.dreaming._transforms import jitter as jitter
from jaxnn.dreaming._transforms import noise as noise
from jaxnn.dreaming._transforms import pad as pad
from jaxnn.dreaming._transforms import rotate as rotate
from jaxnn.dreaming._transforms import scale as scale
from jaxnn.dreaming._transforms import standard_transforms as standard_transforms
