"""Networks in PyTorch, and the same in JAX: of one example, its channels last."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

try:
    from zennit.layer import Sum
except ImportError:  # zennit alone needs to see the sum
    Sum = None


class Skip(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(12, 8)
        self.inner = torch.nn.Linear(8, 8)
        self.sum = Sum()
        self.relus = torch.nn.ModuleList([torch.nn.ReLU(), torch.nn.ReLU()])  # it sees modules alone
        self.last = torch.nn.Linear(8, 4)

    def forward(self, x):
        h = self.relus[0](self.first(x))
        both = torch.stack([h, self.relus[1](self.inner(h))], dim=-1)
        return self.last(self.sum(both) if self.sum else both.sum(-1))


def networks(kind):
    """A network in PyTorch, and its equal in JAX, of one example with the channels last."""
    torch.manual_seed(0)
    if kind == "skip":
        return randomized(Skip(), (12,))
    if kind in ("dense", "relus"):
        parts = [torch.nn.Linear(12, 10), torch.nn.ReLU(), torch.nn.Linear(10, 8)]
        parts += [torch.nn.ReLU() if kind == "relus" else torch.nn.GELU()]
        return randomized(torch.nn.Sequential(*parts, torch.nn.Linear(8, 4)), (12,))
    parts = [torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU()]
    if kind == "conv":
        parts += [torch.nn.MaxPool2d(2)]
    elif kind == "pool alone":
        parts[2] = torch.nn.MaxPool2d(2)
    else:
        parts += [torch.nn.AvgPool2d(2)]
    parts += [torch.nn.Conv2d(4, 6, 3, stride=1), torch.nn.ReLU(), torch.nn.AvgPool2d(2)]
    return randomized(torch.nn.Sequential(*parts, torch.nn.Flatten(), torch.nn.Linear(6, 4)), (8, 8, 2))


def randomized(module, shape):
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.weight.copy_(torch.randn(4))  # negative scales, too
                part.bias.copy_(torch.randn(4) / 2)
                part.running_mean.copy_(torch.randn(4) / 2)
                part.running_var.copy_(torch.rand(4) + 0.5)
    return module.eval(), shape


def in_jax(module):
    if isinstance(module, Skip):
        first, inner, last = in_jax(module.first), in_jax(module.inner), in_jax(module.last)

        def skip(x):
            h = jax.nn.relu(first(x))
            return last(h + jax.nn.relu(inner(h)))

        return skip
    if isinstance(module, torch.nn.Sequential):
        parts = [in_jax(part) for part in module]

        def chain(x):
            for part in parts:
                x = part(x)
            return x

        return chain
    part, settings = PARTS[type(module).__name__]  # jaxnn refuses a function that refers to the module
    options = {name: getattr(module, name) for name in settings}
    options |= {name: jnp.asarray(value.detach().numpy()) for name, value in module.state_dict().items()}
    return lambda x: part(x, **options)


def convolved(x, stride, padding, weight, bias):
    numbers = ("NHWC", "OIHW", "NHWC")
    padding = [(p, p) for p in padding]
    return jax.lax.conv_general_dilated(x[None], weight, stride, padding, dimension_numbers=numbers)[0] + bias


def normalized(x, eps, weight, bias, running_mean, running_var, num_batches_tracked):
    return (x - running_mean) / jnp.sqrt(running_var + eps) * weight + bias


def pooled(x, start, function):
    return jax.lax.reduce_window(x, start, function, (2, 2, 1), (2, 2, 1), "VALID")


PARTS = {  # the function, and the attributes of the module that it takes
    "Linear": (lambda x, weight, bias: weight @ x + bias, ()),
    "Conv2d": (convolved, ("stride", "padding")),
    "BatchNorm2d": (normalized, ("eps",)),
    "ReLU": (jax.nn.relu, ()),
    "GELU": (lambda x: jax.nn.gelu(x, approximate=False), ()),
    "MaxPool2d": (lambda x: pooled(x, -jnp.inf, jax.lax.max), ()),
    "AvgPool2d": (lambda x: pooled(x, 0.0, jax.lax.add) / 4, ()),
    "Flatten": (lambda x: jnp.moveaxis(x, -1, 0).ravel(), ()),
}


def example(shape, seed=3):
    return np.random.default_rng(seed).uniform(-1.5, 2, shape).astype(np.float32)


def channels_first(x):
    """A batch of PyTorch's."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x
