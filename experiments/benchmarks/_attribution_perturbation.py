"""Occlusion and Kernel SHAP in both libraries, for the table of attributions.

`ours_*(model, x, target, key, rows)` takes one example, `captums_*(captum.attr, model, x, target, rows)` a
batch; both evaluate `rows` perturbed examples at a time. `*_SIZE` is the number of these per example.
"""

from typing import Any

import jax

from experiments._common.cnn import Model
from jaxnn import attribution

WINDOW, STRIDE = 4, 2  # of occlusion, on an image of 28 x 28
FLAT_WINDOW, FLAT_STRIDE = 28, 4  # on its 784 pixels as a vector
OCCLUSION_SIZE = 190  # 169 on the image
KERNEL_SHAP_SIZE = 200

# Superpixels of 4 x 4.
SUPERPIXELS = attribution.blocks((28, 28), 4)


def ours_occlusion(model: Model, x: jax.Array, target: jax.Array, key: jax.Array, rows: int) -> jax.Array:
    """Slide a window of zeros over an image, or over a vector of pixels."""
    window, stride = (
        ((FLAT_WINDOW,), FLAT_STRIDE) if x.ndim == 1 else ((WINDOW, WINDOW, 1), (STRIDE, STRIDE, 1))
    )
    return attribution.occlusion(model, x, target, window=window, stride=stride, batch_size=rows)


def captums_occlusion(captum: Any, model: Any, x: Any, target: Any, rows: int) -> Any:
    """Likewise; Captum counts windows, each applied to the whole batch."""
    window, stride = (
        ((FLAT_WINDOW,), FLAT_STRIDE) if x.ndim == 2 else ((1, WINDOW, WINDOW), (1, STRIDE, STRIDE))
    )
    at_once = max(1, rows // len(x))
    return captum.Occlusion(model).attribute(
        x, window, strides=stride, target=target, perturbations_per_eval=at_once
    )


def ours_kernel_shap(model: Model, x: jax.Array, target: jax.Array, key: jax.Array, rows: int) -> jax.Array:
    """Kernel SHAP with 200 samples of superpixels."""
    return attribution.kernel_shap(
        model, x, target, key=key, groups=SUPERPIXELS.reshape(x.shape), n_samples=KERNEL_SHAP_SIZE,
        batch_size=rows,
    )  # fmt: skip


def captums_kernel_shap(captum: Any, model: Any, x: Any, target: Any, rows: int) -> Any:
    """Likewise; Captum fits one example at a time."""
    import torch

    method = captum.KernelShap(model)
    mask = torch.from_numpy(SUPERPIXELS).reshape(1, *x.shape[1:]).to(x.device)
    return [
        method.attribute(
            x[i : i + 1], target=target[i : i + 1], feature_mask=mask, n_samples=KERNEL_SHAP_SIZE,
            perturbations_per_eval=min(rows, KERNEL_SHAP_SIZE),
        )
        for i in range(len(x))
    ]  # fmt: skip
