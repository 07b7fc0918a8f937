"""From a PyTorch module to a `Program` and its arrays: export, conversion, and the names of submodules."""

import operator
import warnings
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnn._adapters.aten import dtype_of
from jaxnn._adapters.aten_recurrent import RECURRENT
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
    for name in (*RECURRENT, "scaled_dot_product_attention.default"):  # whole: not unrolled, without tests
        packet, _, overload = name.partition(".")
        table.pop(getattr(getattr(torch.ops.aten, packet), overload), None)
    modes = [(part, part.training) for part in module.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()  # an attention of one operator, without a formula
    try:
        module.eval()
        torch.backends.mha.set_fastpath_enabled(False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(module, args, keywords).run_decompositions(table)
    except Exception as error:  # of many classes, some of them private
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"`module` must be one that torch.export takes, with `example`: {reason}") from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for part, mode in modes:
            part.training = mode


def convert(exported: Any, keywords: Mapping[str, Any]) -> Graph:
    """A graph as a program; inputs are numbered in the order of JAX, then those of `keywords`.

    Raises:
        ValueError: it has an operator, an output or an object without a counterpart.
    """
    known: dict[Any, Any] = {}  # by node: its place, or what it is
    given, arrays, inputs = _given(exported, keywords, known)
    stacks = {node: node.meta.get("nn_module_stack") or {} for node in exported.graph.nodes}
    names = _output_names(exported.graph, stacks)
    steps: list[Step] = []
    missing: list[str] = []
    for node in exported.graph.nodes:
        if node.op in ("placeholder", "output"):
            continue
        name = _operator_name(node.target)
        if name in _ASSERTIONS:
            continue
        path = _path([path for path, _ in stacks[node].values()][-1:])
        if name not in TABLE:
            missing.append(f"{name} in {path!r}" if path else name)
            continue
        known[node] = Value(len(given) + len(steps))
        if missing:
            continue
        kept = {key: value for key, value in node.kwargs.items() if key not in _OF_MEMORY}
        value = node.meta.get("val")
        steps.append(
            Step(
                name,
                _encode(node.args, known),
                tuple((key, _encode(value, known)) for key, value in kept.items()),
                tuple(value.shape) if hasattr(value, "shape") else None,
                path,
                names[node],
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
            tensor = tensors[origin.target]
            name = first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), origin.target)
            source = ("params" if is_parameter else "buffers", name)
            if name == origin.target:
                arrays[source[0]][name] = _as_array(name, tensor)
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


def _operator_name(target: Any) -> str:
    if target is operator.getitem:
        return "getitem"
    namespace = getattr(target, "namespace", "")
    name = str(target)
    return name.removeprefix("aten.") if namespace == "aten" else name


def _path(paths: list[str]) -> str:
    return paths[0].replace(".", "/") if paths else ""


def _output_names(graph: Any, stacks: Mapping[Any, Mapping[str, Any]]) -> dict[Any, tuple[str, ...]]:
    """The submodules whose output each node is, the innermost first.

    A submodule's call has a key of its own in the stacks of its nodes. Its outputs are the nodes that others
    outside of the call use.
    """
    outputs: dict[str, list[Any]] = defaultdict(list)
    for node in graph.nodes:
        elements = node.op != "call_function" or any(user.target is operator.getitem for user in node.users)
        for key in () if elements else stacks[node]:
            if any(key not in stacks[user] for user in node.users):
                outputs[key].append(node)
    names: dict[Any, list[str]] = defaultdict(list)
    for node in graph.nodes:
        for key, (path, _) in reversed(list(stacks[node].items())):
            own = outputs[key]
            if path and node in own:
                place = f"[{own.index(node)}]" if len(own) > 1 else ""
                names[node].append(_path([path]) + place)
    return {node: tuple(names[node]) for node in graph.nodes}


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
