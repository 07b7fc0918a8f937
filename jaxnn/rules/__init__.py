"""Rules that say what a network does: trees, rule lists, anchors and the exact linear regions."""

from jaxnn.rules._anchor import Anchor as Anchor, anchor as anchor
from jaxnn.rules._conditions import Rule as Rule
from jaxnn.rules._distill import distill_tree as distill_tree
from jaxnn.rules._list import RuleList as RuleList, rule_list as rule_list
from jaxnn.rules._partition import (
    AffineTree as AffineTree,
    LinearRegions as LinearRegions,
    linear_regions as linear_regions,
)
from jaxnn.rules._region import LinearRegion as LinearRegion, linear_region as linear_region
from jaxnn.rules._tree import Tree as Tree, TreeRules as TreeRules
from jaxnn.rules._trepan import trepan as trepan
