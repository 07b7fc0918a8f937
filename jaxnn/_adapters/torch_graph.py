"""From a PyTorch module to a `Program` and its arrays: export, conversion, and the names of submodules."""

import contextlib
import functools
import operator
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._adapters.aten import RECURRENT, dtype_of
from jaxnn._adapters.torch_program import TABLE, Program, Step, Value
from jaxnn._arrays import as_numpy

_ASSERTIONS = {"_assert_tensor_metadata.default", "_assert_async.msg", "_assert_scalar.default"}
_OF_MEMORY = {"device", "layout", "pin_memory", "memory_format", "non_blocking"}  # no matter of values


class Graph(NamedTuple):
    """A module's graph, and its arrays by name."""

    program: Program
    params: dict[str, jax.Array]
    buffers: dict[str, jax.Array]


def export(module: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Export a module in evaluation mode; what is changed for this is put back.

    Raises:
        ValueError: PyTorch refuses it.
    """
    import torch

    table = torch.export.default_decompositions()
    for name in (*RECURRENT, "scaled_dot_product_attention.default", "detach.default"):  # as they are
        packet, _, overload = name.partition(".")
        table.pop(getattr(getattr(torch.ops.aten, packet), overload), None)
    modes = [(part, part.training) for part in module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()  # an attention of one operator, without a formula
    try:
        module.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings(), _named_outputs(module):
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, args, keywords)
            graph = exported.run_decompositions(table)
    except Exception as error:  # of many classes, some of them private
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"`module` must be one that torch.export takes, with `example`: {reason}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, mode in modes:
            part.training = mode
    _check_gradients(exported.graph_module)
    return graph


def _check_gradients(graph_module: Any) -> None:
    """Raise for `torch.no_grad()` around inputs or parameters: the operators do not say where it was."""
    for part in graph_module.modules():
        for node in getattr(getattr(part, "graph", None), "nodes", ()):
            if "set_grad_enabled" not in str(node.target) or node.args[:1] != (False,):
                continue
            if any(each.op != "get_attr" for each in node.all_input_nodes):
                raise ValueError(
                    "`module` must not use torch.no_grad() in its forward pass: gradients would pass "
                    "through. `detach` stops them"
                )


@functools.cache
def _tap_operator() -> Any:
    """An operator that keeps the name of a submodule's output in the graph."""
    import torch

    def tap(value: Any, name: Any) -> Any:
        return value.clone()

    tap.__annotations__ = {"value": torch.Tensor, "name": str, "return": torch.Tensor}
    operator = torch.library.custom_op("jaxnn::tap", tap, mutates_args=())
    operator.register_fake(lambda value, name: torch.empty_like(value))
    return operator


@contextlib.contextmanager
def _named_outputs(module: Any) -> Iterator[None]:
    """While a module is exported, its submodules tap the tensors that they return by their path."""
    import torch

    tree, tap = torch.utils._pytree, _tap_operator()

    def hook(path: str) -> Any:
        def name(part: Any, args: Any, output: Any) -> Any:
            def leaf(place: Any, value: Any) -> Any:
                return tap(value, path + tree.keystr(place)) if isinstance(value, torch.Tensor) else value

            return tree.tree_map_with_path(leaf, output)

        return name

    hooks = [
        part.register_forward_hook(hook(path.replace(".", "/")))
        for path, part in module.named_modules()
        if path
    ]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()


def convert(exported: Any, keywords: Mapping[str, Any]) -> Graph:
    """A graph as a program; inputs are numbered in the order of JAX, then those of `keywords`.

    Raises:
        ValueError: it has an operator, an output or an object without a counterpart.
    """
    known: dict[Any, Any] = {}  # by node: its place, or what it is
    given, arrays, inputs = _given(exported, keywords, known)
    steps: list[Step] = []
    missing: list[str] = []
    for node in exported.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        name = _operator_name(node.target)
        if name in _ASSERTIONS:
            continue
        _check_strides(name, node)
        path = _path(node)
        if name not in TABLE:
            missing.append(f"{name} in {path!r}" if path else name)
            continue
        known[node] = Value(len(given) + len(steps))
        if missing:
            continue
        kept = {key: value for key, value in node.kwargs.items() if key not in _OF_MEMORY}
        value = node.meta.get("val")
        is_tensor = hasattr(value, "shape")
        steps.append(
            Step(
                name,
                _encode(node.args, known),
                tuple((key, _encode(argument, known)) for key, argument in kept.items()),
                tuple(value.shape) if is_tensor else None,
                dtype_name(value.dtype) if is_tensor else "",
                path,
            )
        )
    if missing:
        shown = ", ".join(dict.fromkeys(missing))
        raise ValueError(f"`module` must have operators with a counterpart here; it has {shown}")
    structure, output = _output(exported, known)
    program = Program(tuple(given), tuple(inputs), tuple(steps), structure, output)
    return Graph(program, arrays["params"], arrays["buffers"])


def _given(
    exported: Any, keywords: Mapping[str, Any], known: dict[Any, Any]
) -> tuple[list[tuple[str, Any]], dict[str, dict[str, jax.Array]], list[Any]]:
    """What the placeholders of a graph are, the arrays by name, and shape and dtype of each input."""
    signature = exported.graph_signature
    number_of = _input_numbers(exported.call_spec.in_spec, keywords)
    given: list[tuple[str, Any]] = []
    first: dict[Any, str] = {}  # the name of each tensor: shared ones have several
    arrays: dict[str, dict[str, jax.Array]] = {"params": {}, "buffers": {}}
    inputs: dict[int, tuple[tuple[int, ...], str]] = {}
    n_arguments = 0
    placeholders = (node for node in exported.graph.nodes if node.op == "placeholder")
    for node, origin in zip(placeholders, signature.input_specs, strict=True):
        value = node.meta.get("val")
        if origin.kind.name == "USER_INPUT":
            n_arguments += 1
            if not hasattr(value, "shape"):
                known[node] = getattr(origin.arg, "value", value)  # a number, a string or None
                continue
            number = number_of[n_arguments - 1]
            inputs[number] = tuple(value.shape), dtype_name(value.dtype)
            source: tuple[str, Any] = ("inputs", number)
        elif origin.kind.name in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            is_parameter = origin.kind.name == "PARAMETER"
            if not is_parameter and not node.users:
                continue
            tensors = exported.state_dict if origin.target in exported.state_dict else exported.constants
            tensor, collection = tensors[origin.target], "params" if is_parameter else "buffers"
            own = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, collection)
            name = first.setdefault(own, origin.target) if tensor.numel() else origin.target
            source = (collection, name)
            if name == origin.target:
                arrays[collection][name] = _as_array(name, tensor)
        else:
            raise ValueError(
                f"`module` must hold parameters and buffers; {origin.target!r} is a {origin.kind.name}"
            )
        known[node] = Value(len(given))
        given.append(source)
    return given, arrays, [inputs[number] for number in sorted(inputs)]


def _input_numbers(spec: Any, keywords: Mapping[str, Any]) -> dict[int, int]:
    """From the place of an argument in the graph, where dictionaries keep their order, to its number."""
    import torch

    args, named = torch.utils._pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    example = {key: place for key, place in named.items() if key not in keywords}
    last = sorted(keywords, key=lambda key: not hasattr(keywords[key], "shape"))  # arrays before the others
    order = [*jax.tree.leaves((args, example)), *(named[key] for key in last)]
    return {place: number for number, place in enumerate(order)}


def _check_strides(name: str, node: Any) -> None:
    """Raise where an operator reads the memory of a tensor whose elements are in another order here."""
    if name == "as_strided.default" and not node.args[0].meta["val"].is_contiguous():
        raise ValueError("`module` must not call `as_strided` on a tensor that is not contiguous")


def _operator_name(target: Any) -> str:
    if target is operator.getitem:
        return "getitem"
    return str(target).removeprefix("aten.").removeprefix("jaxnn.")


def _path(node: Any) -> str:
    """The path of the innermost submodule that computes a node; "" for the module itself."""
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return paths[-1].replace(".", "/") if paths else ""


def _encode(argument: Any, known: Mapping[Any, Any]) -> Any:
    """An argument of an operator as static data."""
    if isinstance(argument, list | tuple):
        return tuple(_encode(each, known) for each in argument)
    if argument is None or isinstance(argument, bool | int | float | str):
        return argument
    if hasattr(argument, "op"):
        return known[argument]
    kind = type(argument).__name__
    if kind == "dtype":
        return dtype_name(argument)
    raise ValueError(
        f"`module` must have shapes that do not depend on values; an operator has a {kind}, {argument}"
    )


def _output(exported: Any, known: Mapping[Any, Any]) -> tuple[jax.tree_util.PyTreeDef, tuple[Any, ...]]:
    """The structure of the output in tuples, lists and dictionaries, and its leaves."""
    import torch

    (leaves,) = next(node for node in exported.graph.nodes if node.op == "output").args
    kinds = [origin.kind.name for origin in exported.graph_signature.output_specs]
    wanted = [_encode(leaf, known) for leaf, kind in zip(leaves, kinds, strict=True) if kind == "USER_OUTPUT"]
    tree = torch.utils._pytree.tree_unflatten(wanted, exported.call_spec.out_spec)

    def plain(node: Any) -> Any:
        if type(node) is Value:
            return node
        if isinstance(node, Mapping):
            return {key: plain(each) for key, each in node.items()}
        if isinstance(node, list | tuple):
            return tuple(map(plain, node))
        return node

    found, structure = jax.tree.flatten(plain(tree), is_leaf=lambda node: type(node) is Value)
    return structure, tuple(found)


def _as_array(name: str, tensor: Any) -> jax.Array:
    """A copy of a tensor; NumPy has no bfloat16."""
    host = tensor.detach().cpu()
    dtype = dtype_name(host.dtype)
    host = host.float().numpy() if dtype == "bfloat16" else host.numpy()
    return jnp.array(as_numpy(name, host), dtype_of(dtype))


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of PyTorch, which is also NumPy's."""
    return str(dtype).removeprefix("torch.")
