"""Weights: read the parameters of a dense network directly, without data or gradients.

Kernels as images and their roughness (`_images`), the strongest weights of each unit (`_features`), products
of inputs and weights (`_paths`), and networks without some units or weights (`_lesion`). Start reading at
`_images`. A layer is given by index or name everywhere (`_layers`).
"""

from jaxnn.weights._features import TopFeatures as TopFeatures, top_features as top_features
from jaxnn.weights._images import (
    kernel_images as kernel_images,
    output_images as output_images,
    roughness as roughness,
)
from jaxnn.weights._lesion import lesion as lesion, random_mask as random_mask
from jaxnn.weights._paths import contributions as contributions, path_products as path_products
