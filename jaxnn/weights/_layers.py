"""Layers by index or name."""

import operator

from jaxnn._network import Network, check_network

Layer = int | str  # 0 to n - 1, negative from the end, or a name: "hidden_0", ..., "output"


def layer_index(argument: str, layer: Layer, network: Network) -> int:
    """The index from 0 of a layer given by index or name."""
    check_network(network)
    names = network.layer_names
    if isinstance(layer, str):
        if layer in names:
            return names.index(layer)
    else:
        try:
            if isinstance(layer, bool):
                raise TypeError("a boolean")
            index = operator.index(layer)
        except TypeError as error:
            raise TypeError(
                f"`{argument}` must be a layer's index or name; got {type(layer).__name__} {layer!r}"
            ) from error
        if -len(names) <= index < len(names):
            return index % len(names)
    listed = ", ".join(f"{name!r} ({i})" for i, name in enumerate(names))
    raise ValueError(f"`{argument}` must be one of {listed}, or negative from the end; got {layer!r}")
