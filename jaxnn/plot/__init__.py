"""Figures: pure functions that draw on, and return, matplotlib `Axes`.

They take arrays and results of the library, never models, and hold no state. One file per kind of figure:
`_images` (grids, curves and bars; start here), `_maps` (activations and decision maps), `_attribution`,
`_series`, `_tokens`, `_rules`, `_explanation` for `jaxnn.explain`, and `_quality` for `jaxnn.quality`;
`_common` has the colors and the checks that they share.
"""

from jaxnn.plot._attribution import attribution as attribution, feature_bars as feature_bars
from jaxnn.plot._common import BLUE as BLUE, ORANGE as ORANGE
from jaxnn.plot._explanation import explanation as explanation
from jaxnn.plot._images import (
    features_of_output as features_of_output,
    image_grid as image_grid,
    output_bars as output_bars,
    training_curve as training_curve,
    weight_grid as weight_grid,
)
from jaxnn.plot._maps import activation_image as activation_image, decision_map as decision_map
from jaxnn.plot._quality import (
    deletion_curves as deletion_curves,
    quality_table as quality_table,
    randomization as randomization,
)
from jaxnn.plot._rules import (
    decision_tree as decision_tree,
    regions as regions,
    rule_list as rule_list,
    rule_on_data as rule_on_data,
)
from jaxnn.plot._series import series as series
from jaxnn.plot._tokens import tokens as tokens, tokens_html as tokens_html
