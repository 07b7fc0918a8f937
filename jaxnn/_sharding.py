"""Where values live: on which devices of a mesh; along which of its axes they differ."""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnn._checks import is_key

Tree = TypeVar("Tree")


def check_mesh(mesh: Any, batch_size: int | None) -> None:
    """Raise unless the devices along the first axis of the mesh share a batch evenly."""
    if not isinstance(mesh, Mesh):
        raise TypeError(f"`mesh` must be a jax.sharding.Mesh; got {type(mesh).__name__}")
    if not mesh.axis_names:
        raise ValueError("`mesh` must have at least one axis; got one without")
    size = mesh.devices.shape[0]
    if batch_size is not None and batch_size % size:
        raise ValueError(
            f"`batch_size` must be a multiple of the {size} devices along the axis "
            f"{mesh.axis_names[0]!r} of `mesh`; got {batch_size}"
        )


def model_sharding(tree: Any, mesh: Mesh) -> Any:
    """Where the arrays of a model live on a mesh, a sharding a leaf.

    Each is on all devices along the first axis of the mesh, which share the examples. Along a second axis its
    own largest axis is divided: of those that can be divided evenly; where there is none, it is on all.
    """

    def place(leaf: Any) -> NamedSharding:
        devices, shape = mesh.devices.shape, jnp.shape(leaf)
        even = [i for i, size in enumerate(shape) if len(devices) > 1 and size and size % devices[1] == 0]
        if not even:
            return NamedSharding(mesh, PartitionSpec())
        largest = max(even, key=lambda i: shape[i])
        # With no axis named after it, as compiled programs write it: another spelling would compile anew.
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, mesh.axis_names[1]))

    return jax.tree.map(place, tree)


def put(tree: Tree, places: Any) -> Tree:
    """`jax.device_put`, also to devices of other processes, where each process holds the same arrays.

    Args:
        tree: of arrays.
        places: a sharding for each, as a tree of that structure; or one for all.
    """
    if isinstance(places, NamedSharding):
        places = jax.tree.map(lambda leaf: places, tree)
    if all(place.is_fully_addressable for place in jax.tree.leaves(places)):
        return jax.device_put(tree, places)

    def put_one(leaf: Any, place: NamedSharding) -> Any:
        if is_key(leaf):
            data = put_one(jax.random.key_data(leaf), place)
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        if not isinstance(leaf, jax.core.Tracer) and getattr(leaf, "is_fully_addressable", False):
            leaf = np.asarray(leaf)  # an array bound to a device does not go to others' of its own accord
        return jax.device_put(leaf, place)

    return jax.tree.map(put_one, tree, places)


def of_this_process(name: str, tree: Tree) -> Tree:
    """The same arrays as this process holds them, where those of other processes hold copies."""

    def turn(leaf: Any) -> Any:
        if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
            return leaf
        if not leaf.is_fully_replicated:
            raise ValueError(
                f"`{name}` must hold arrays that are whole on this process; one of shape {leaf.shape} is "
                "divided among processes"
            )
        return leaf.addressable_data(0)

    return jax.tree.map(turn, tree)


def automatic(mesh: Mesh) -> Mesh:
    """The same devices with the compiler placing the data; explicit axes refuse to be shuffled."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def with_automatic_axes(tree: Tree) -> Tree:
    """The same arrays in the same places, those on explicit mesh axes turned to automatic ones."""

    def turn(leaf: Any) -> Any:
        if isinstance(leaf, jax.core.Tracer) or not isinstance(
            getattr(leaf, "sharding", None), NamedSharding
        ):
            return leaf
        mesh, spec = leaf.sharding.mesh, leaf.sharding.spec
        if AxisType.Explicit not in mesh.axis_types:
            return leaf
        return jax.device_put(leaf, NamedSharding(automatic(mesh), spec))

    return jax.tree.map(turn, tree)
