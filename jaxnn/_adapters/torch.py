"""Adapter for PyTorch modules: the exported graph of a module is evaluated by functions of JAX.

`torch.export` gives a flat graph of core ATen operators, each with the path of the submodule that computes
it. `torch_graph` makes static data and arrays of it, and `torch_program` evaluates them; PyTorch itself is
not needed afterwards.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxnn._adapters import common
from jaxnn._adapters.aten import dtype_of
from jaxnn._adapters.torch_graph import convert, export
from jaxnn._adapters.torch_program import Program
from jaxnn._checks import check_flag, require
from jaxnn._model import Frozen, as_example
from jaxnn._repr import short_repr
from jaxnn._typing import PyTree

if TYPE_CHECKING:
    from torch.nn import Module as TorchModule


@flax.struct.dataclass
class TorchModel:
    """A PyTorch module as a model of one example; made by `from_torch`.

    Attributes:
        params: the parameters, by their names in the module.
        frozen: the buffers, by name, and the arrays among the keyword arguments; not trained.
    """

    params: dict[str, jax.Array]
    frozen: Frozen
    program: Program = flax.struct.field(pytree_node=False)
    batched: bool = flax.struct.field(pytree_node=False)

    def __repr__(self) -> str:
        return short_repr(self)

    def __call__(self, x: PyTree) -> PyTree:
        """The module's output in evaluation mode, each submodule's output tapped by its path."""
        return common.call_one(self._call, x, batched=self.batched, needs="`batched` needs a module")

    def _call(self, x: PyTree) -> PyTree:
        buffers, others = self.frozen.value
        leaves = self.program.cast(jax.tree.leaves(_arguments(x)), int(self.batched))
        arrays = {"params": self.params, "buffers": buffers, "inputs": [*leaves, *others]}
        return self.program.run(arrays, batched=self.batched)


def _arguments(x: PyTree) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a module: a tuple is several, a dictionary those by keyword."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return (tuple(x) if isinstance(x, tuple) else (x,)), {}


def from_torch(module: "TorchModule", example: PyTree, *, batched: bool = True, **kwargs: Any) -> TorchModel:
    """PyTorch adapter: make a model of one example from a module.

    The module is exported by `torch.export` in evaluation mode, for arrays of the shapes and dtypes of
    `example`, and its operators are evaluated by JAX. PyTorch is not needed afterwards. Images stay
    channels-first, `(channels, height, width)`. The output of each submodule is named by its path, such as
    `"layer1/0/conv1"`, for `jaxnn.capture` and `jaxnn.intervene`. Recurrent modules are scans over time.

    `jaxnn.train` trains the parameters; the buffers, such as the averages of `BatchNorm2d`, are frozen.
    Values are copied: later training of the module does not change the result.

    Args:
        module: a `torch.nn.Module`, on any device. It is not changed.
        example: one example, without its batch axis: a tuple holds several arguments of the module, a
            dictionary those by keyword, and everything else is one argument. Only its shapes and dtypes
            matter. Integers are tokens or indices, and become PyTorch's `long`.
        batched: whether the module requires a batch axis, as most do: an axis of one is inserted before each
            array of the input, and removed from the output and from named arrays (where they have one).
        kwargs: further keyword arguments of the call, such as a mask, with their batch axis. Arrays among
            them are leaves, not trained.

    Returns:
        A callable pytree. Models built from equal modules with equal shapes share one compilation. Called
        with arrays of other shapes than those of `example`, it raises.

    Raises:
        ImportError: PyTorch is not installed.
        TypeError: `module` is not a module, `example` holds something else than arrays, or `kwargs` something
            else than arrays, numbers, strings and None.
        ValueError: `torch.export` refuses the module, for example since its operations depend on values of
            the input, or the graph has an operator that is not supported, which is named.

    Example:
        >>> import jax.numpy as jnp, jaxnn
        >>> import torch  # doctest: +SKIP
        >>> module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())  # doctest: +SKIP
        >>> model = jaxnn.from_torch(module, jnp.ones(3))  # doctest: +SKIP
        >>> y, values = jaxnn.capture(model, jnp.ones(3))  # doctest: +SKIP
        >>> {name: value.shape for name, value in values.items()}  # doctest: +SKIP
        {'0': (4,), '1': (4,)}
    """
    require("torch", "`from_torch`", "torch")
    import torch

    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"`module` must be a torch.nn.Module; got {common.describe(module)}")
    batched = check_flag("batched", batched)
    example = as_example("example", example)
    like = _kind_of(module)
    args, named = jax.tree.map(lambda leaf: _as_tensor(leaf, like, batched), _arguments(example))
    others = {key: _as_argument(key, value, like) for key, value in kwargs.items()}
    if twice := sorted(named.keys() & others.keys()):
        raise ValueError(f"`kwargs` must not hold what `example` holds; got {twice[0]!r} in both")
    graph = convert(export(module, args, named | others), others)
    arrays = [jnp.asarray(value) for value in kwargs.values() if common.is_array(value)]
    kinds = graph.program.inputs[len(graph.program.inputs) - len(arrays) :]
    frozen = Frozen(
        (graph.buffers, [each.astype(dtype_of(name)) for each, (_, name) in zip(arrays, kinds, strict=True)])
    )
    model = TorchModel(graph.params, frozen, graph.program, batched)
    jax.eval_shape(lambda model, x: model(x), model, example)  # compares the shape of each value
    return model


def _kind_of(module: Any) -> Any:
    """The first tensor of floating-point numbers, whose dtype and device the example gets."""
    return next(
        (each for each in (*module.parameters(), *module.buffers()) if each.is_floating_point()), None
    )


def _as_tensor(leaf: Any, like: Any, batched: bool) -> Any:
    """An array in PyTorch: integers are `long`, and floating-point numbers of the module's dtype."""
    import torch

    dtype: Any = bool
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        dtype = np.int64
    elif jnp.issubdtype(leaf.dtype, jnp.floating):
        dtype = np.float32
    elif leaf.dtype != bool:
        raise TypeError(f"`kwargs` must hold real numbers; got {leaf.dtype}")
    tensor = torch.from_numpy(np.array(leaf, dtype))
    if like is not None:
        tensor = tensor.to(like.device, like.dtype if dtype is np.float32 else None)
    return tensor[None] if batched else tensor


def _as_argument(key: str, value: Any, like: Any) -> Any:
    """A keyword argument in PyTorch."""
    if common.is_array(value):
        return _as_tensor(value, like, batched=False)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"`kwargs` must hold arrays, numbers, strings and None; {key!r} is a {common.describe(value)}"
    )
