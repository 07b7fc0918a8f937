"""Explanation quality: metrics of attributions, and sanity checks of methods; `report` asks them all.

A metric is a pure function of one example, `metric(model, x, target, attributions, ...)`, or, where it
explains changed inputs or networks itself, `metric(model, x, target, explain, ...)`, with a method such as
`attribution.saliency`. There are removal of features (`_deletion`, `_road`, `_faithfulness`), stability
(`_stability`), axioms (`_axioms`), complexity (`_shape`), known regions (`_localization`), and random
parameters, classes and labels (`_randomize`, `_sanity`, `_reproducibility`). Start reading at `_deletion`.
"""

from jaxnn.quality._axioms import (
    completeness as completeness,
    input_invariance as input_invariance,
    non_sensitivity as non_sensitivity,
)
from jaxnn.quality._deletion import (
    Curve as Curve,
    deletion as deletion,
    insertion as insertion,
    symmetric_relevance_gain as symmetric_relevance_gain,
)
from jaxnn.quality._faithfulness import (
    Infidelity as Infidelity,
    SensitivityN as SensitivityN,
    faithfulness_correlation as faithfulness_correlation,
    infidelity as infidelity,
    mu_fidelity as mu_fidelity,
    sensitivity_n as sensitivity_n,
)
from jaxnn.quality._localization import (
    pointing_game as pointing_game,
    relevance_auc as relevance_auc,
    relevance_mass as relevance_mass,
    relevance_rank as relevance_rank,
)
from jaxnn.quality._randomize import (
    parameter_layers as parameter_layers,
    randomize_parameters as randomize_parameters,
)
from jaxnn.quality._report import (
    MethodQuality as MethodQuality,
    Report as Report,
    Verdict as Verdict,
    report as report,
)
from jaxnn.quality._reproducibility import mege as mege, reco as reco
from jaxnn.quality._road import Road as Road, road as road
from jaxnn.quality._sanity import (
    ParameterRandomization as ParameterRandomization,
    data_randomization as data_randomization,
    efficient_parameter_randomization as efficient_parameter_randomization,
    parameter_randomization as parameter_randomization,
    random_logit as random_logit,
    smoothed as smoothed,
)
from jaxnn.quality._shape import (
    complexity as complexity,
    effective_complexity as effective_complexity,
    normalize as normalize,
    sparseness as sparseness,
)
from jaxnn.quality._similarity import Similarity as Similarity
from jaxnn.quality._stability import (
    average_sensitivity as average_sensitivity,
    local_lipschitz as local_lipschitz,
    max_sensitivity as max_sensitivity,
    relative_input_stability as relative_input_stability,
)
