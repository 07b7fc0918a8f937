"""Weights: read the parameters of a dense network directly, without data or gradients.

Kernels as images and their roughness (`_images`), the strongest weights, contributions and path products
(`_features`), and networks without some units or weights (`_lesion`). Start reading at `_images`.
"""

from jaxnn.weights._features import (
    TopFeatures as TopFeatures,
    contributions as contributions,
    path_products as path_products,
    top_features as top_features,
)
from jaxnn.weights._images import (
    kernel_images as kernel_images,
    output_images as output_images,
    roughness as roughness,
)
from jaxnn.weights._lesion import lesion as lesion, random_mask as random_mask
