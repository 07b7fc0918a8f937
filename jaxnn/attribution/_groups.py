"""Groups of elements that become one feature: blocks, and superpixels."""

from collections.abc import Sequence

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Int, Num

from jaxnn import _checks
from jaxnn._arrays import as_numpy


def blocks(shape: Sequence[int], size: Sequence[int] | int) -> Int[np.ndarray, "..."]:
    """Blocks: number the elements of an array by rectangular blocks, for `groups=`.

    An element at `i` is in the block `(i_1 // size_1, i_2 // size_2, ...)`; blocks are numbered in the order
    of their rows. The last block along an axis may be smaller.

    Args:
        shape: of the array.
        size: of a block along each axis; or one integer for all axes. As large as the axis: the axis is not
            divided, such as that of the channels.

    Returns:
        Integers from 0 to the number of blocks less 1, of that shape, int32.

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is below 1, or there is not one per axis.

    Example:
        >>> from jaxnn import attribution
        >>> attribution.blocks((2, 4), (2, 2)).tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1]]
        >>> model = lambda image: image.sum()
        >>> groups = attribution.blocks((32, 32, 3), (8, 8, 3))
        >>> attribution.feature_ablation(model, [[[1.0] * 3] * 32] * 32, groups=groups).shape
        (32, 32, 3)
    """
    shape = _checks.check_sizes("shape", shape)
    sizes = (size,) * len(shape) if hasattr(size, "__index__") else size
    sizes = _checks.check_sizes("size", sizes)
    if len(sizes) != len(shape):
        raise ValueError(f"`size` must have one integer for each axis of {shape}; got {sizes}")
    counts = tuple(-(-length // step) for length, step in zip(shape, sizes, strict=True))
    numbers = np.arange(np.prod(counts), dtype=np.int32).reshape(counts)
    places = (np.arange(length) // step for length, step in zip(shape, sizes, strict=True))
    return numbers[np.ix_(*places)]


def superpixels(
    image: Num[ArrayLike, "height width *channels"], n: int = 50, *, compactness: float = 10.0
) -> Int[np.ndarray, "height width *channels"]:
    """Superpixels: number the pixels of an image by regions of similar color, for `groups=`.

    By SLIC, k-means of color and position, of scikit-image. It needs the extra `superpixels`.

    Args:
        image: `(h, w)` or `(h, w, c)`, finite numbers of any range; of an image with its channels first, pass
            `jax.numpy.moveaxis(image, 0, -1)`, and move the axis of the result back.
        n: how many regions to aim at, at least 1.
        compactness: the weight of the position beside the color, above 0; the higher, the squarer.

    Returns:
        Integers from 0 to the number of regions less 1, of the shape of the image: all channels of a pixel
        are in one group.

    Raises:
        ImportError: scikit-image is not installed.
        TypeError: `image` does not hold numbers, or an argument is of another type.
        ValueError: another number of axes, a number that is not finite, or an option out of range.

    Example:
        >>> from jaxnn import attribution  # doctest: +SKIP
        >>> groups = attribution.superpixels(image, 50)  # doctest: +SKIP
        >>> attribution.kernel_shap(model, image, 3, key=key, groups=groups).shape  # doctest: +SKIP
        (224, 224, 3)

    References:
        Achanta and others, "SLIC superpixels compared to state-of-the-art superpixel methods", 2012.
    """
    array = np.asarray(_checks.check_real_array("image", as_numpy("image", image)), np.float64)
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(f"`image` must have shape (h, w) or (h, w, c); got {array.shape}")
    _checks.check_finite("image", array)
    n = _checks.check_integer("n", n, at_least=1)
    compactness = _checks.check_real("compactness", compactness, above=0)
    segmentation = _checks.require("skimage.segmentation", "attribution.superpixels", "superpixels")
    spread = array.max() - array.min()
    scaled = (array - array.min()) / (spread if spread > 0 else 1)
    found = segmentation.slic(
        scaled,
        n_segments=n,
        compactness=compactness,
        start_label=0,
        convert2lab=array.shape[2:] == (3,),
        channel_axis=None if array.ndim == 2 else -1,
    )
    _, numbers = np.unique(found, return_inverse=True)  # without gaps
    regions = numbers.reshape(found.shape).astype(np.int32)
    return np.broadcast_to(regions.reshape(*regions.shape, *(1,) * (array.ndim - 2)), array.shape)
