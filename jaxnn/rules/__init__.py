"""Rules that say what a network does: trees, rule lists, anchors and the exact linear regions."""

from jaxnn.rules._region import LinearRegion as LinearRegion
from jaxnn.rules._region import linear_region as linear_region
from jaxnn.rules._partition import AffineTree as AffineTree
from jaxnn.rules._partition import LinearRegions as LinearRegions
from jaxnn.rules._partition import linear_regions as linear_regions
