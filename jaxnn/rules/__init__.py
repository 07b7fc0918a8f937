"""Rules that say what a network does: trees, rule lists, anchors and the exact linear regions."""

from jaxnn.rules._anchor import Anchor as Anchor
from jaxnn.rules._anchor import anchor as anchor
from jaxnn.rules._conditions import Rule as Rule
from jaxnn.rules._distill import distill_tree as distill_tree
from jaxnn.rules._list import RuleList as RuleList
from jaxnn.rules._list import rule_list as rule_list
from jaxnn.rules._partition import AffineTree as AffineTree
from jaxnn.rules._partition import LinearRegions as LinearRegions
from jaxnn.rules._partition import linear_regions as linear_regions
from jaxnn.rules._region import LinearRegion as LinearRegion
from jaxnn.rules._region import linear_region as linear_region
from jaxnn.rules._tree import Tree as Tree
from jaxnn.rules._tree import TreeRules as TreeRules
from jaxnn.rules._trepan import trepan as trepan
