"""The networks of `architectures`, as modules of PyTorch with random weights, and as functions of JAX."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import jaxnn

IMAGE = (3, 224, 224)
TOKENS, WIDTH, BLOCKS = 256, 768, 12  # of the GPT
STEPS, UNITS, FEATURES = 200, 128, 64  # of the LSTM


class Architecture(NamedTuple):
    """A network.

    Attributes:
        title: in the table.
        shape: of one input.
        operations: of one forward pass, at least.
        layer: of Grad-CAM, if any.
    """

    title: str
    shape: tuple[int, ...]
    operations: float
    layer: str = ""


ARCHITECTURES = {
    "resnet50": Architecture("ResNet-50", IMAGE, 8.2e9, "layer4"),
    "efficientnet_b0": Architecture("EfficientNet-B0", IMAGE, 0.8e9, "features"),
    "vit_b_16": Architecture("ViT-B/16", IMAGE, 35.2e9),
    "gpt": Architecture(
        "GPT of 12 blocks, 256 tokens",
        (TOKENS, WIDTH),
        BLOCKS * (24 * TOKENS * WIDTH**2 + 4 * TOKENS**2 * WIDTH),
    ),
    "lstm": Architecture("LSTM, 200 steps", (STEPS, FEATURES), 8 * STEPS * UNITS * (FEATURES + UNITS)),
}


def module_of(network: str) -> Any:
    """The module, with random weights; no operation in place, which Captum does not take."""
    import torch

    torch.manual_seed(0)
    makes: dict[str, Callable[[], Any]] = {"gpt": _gpt, "lstm": _lstm}
    module = (makes[network] if network in makes else _of_torchvision(network))().eval()
    for each in module.modules():
        if hasattr(each, "inplace"):
            each.inplace = False
    return module


def _of_torchvision(network: str) -> Callable[[], Any]:
    import torchvision

    make: Callable[[], Any] = getattr(torchvision.models, network)
    return make


def _gpt() -> Any:
    """Blocks as those of GPT-2, from embeddings to 1,000 logits of the next token."""
    import torch
    from torch import nn

    class Block(nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
            self.attend, self.project = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

        def forward(self, x: Any) -> Any:
            heads = self.attend(self.norms[0](x)).unflatten(-1, (3, 12, WIDTH // 12))
            q, k, v = (heads[:, :, i].transpose(1, 2) for i in range(3))
            attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.project(attended.transpose(1, 2).flatten(2))
            return x + self.mlp(self.norms[1](x))

    class GPT(nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 1000, bias=False)

        def forward(self, x: Any) -> Any:
            return self.head(self.norm(self.blocks(x)[:, -1]))

    return GPT()


def _lstm() -> Any:
    """An LSTM, and ten logits of its last output."""
    from torch import nn

    class LSTM(nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(FEATURES, UNITS, batch_first=True), nn.Linear(UNITS, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    return LSTM()


def inputs_of(network: str, count: int) -> np.ndarray:
    """Random inputs; images have their channels first."""
    shape = (count, *ARCHITECTURES[network].shape)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def model_of(network: str) -> Any:
    """The module as a function of JAX."""
    warnings.simplefilter("ignore")  # those of torch.export
    return jaxnn.from_torch(module_of(network), inputs_of(network, 1)[0])
