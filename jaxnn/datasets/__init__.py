"""Small data sets: images of handwritten digits, and points of a plane.

Start with `load` for images (`_mnist`) and `point_set` for points (`_point_sets`). `encode_images` and
`encode_labels` turn images and labels into the inputs and targets of a network (`_encoding`).
"""

from jaxnn.datasets._encoding import encode_images as encode_images, encode_labels as encode_labels
from jaxnn.datasets._mnist import Dataset as Dataset, Split as Split, load as load
from jaxnn.datasets._point_sets import POINT_SETS as POINT_SETS, Points as Points, point_set as point_set
