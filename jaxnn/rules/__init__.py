"""Rules: decision trees, rule lists, anchors and exact linear regions that describe a model.

The first three are learned from queries of any model. `_problem` (start here) wraps a model as a classifier
of feature vectors, `_sampling` draws inputs to query it on, and `_rule` holds one rule and its text. On them
rest `_distill` and `_trepan` (trees, as arrays of `_tree`), `_list` and `_anchor`. The linear regions are
read from the graph of a piecewise linear model: `_region` finds the region of one input, `_partition` all.
"""

from jaxnn.rules._anchor import Anchor as Anchor, anchor as anchor
from jaxnn.rules._distill import distill_tree as distill_tree
from jaxnn.rules._list import RuleList as RuleList, rule_list as rule_list
from jaxnn.rules._partition import (
    AffineTree as AffineTree,
    LinearRegions as LinearRegions,
    linear_regions as linear_regions,
)
from jaxnn.rules._region import LinearRegion as LinearRegion, linear_region as linear_region
from jaxnn.rules._rule import Rule as Rule
from jaxnn.rules._tree import Tree as Tree, TreeRules as TreeRules
from jaxnn.rules._trepan import trepan as trepan
