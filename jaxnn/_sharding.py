"""Placement of arrays on the devices of a mesh."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnn._typing import PyTree


def check_mesh(mesh: Any, batch_size: int | None) -> Mesh:
    """Return the mesh with automatic axes, or raise unless its first axis divides a batch evenly."""
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
    return _automatic_mesh(mesh)


def _automatic_mesh(mesh: Any) -> Mesh:
    """The same devices with the compiler placing the data; explicit axes refuse to be shuffled."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def automatic_axes(leaf: Any) -> Any:
    """Turn explicit mesh axes of an array into automatic ones; its placement is unchanged."""
    sharding = None if isinstance(leaf, jax.core.Tracer) else getattr(leaf, "sharding", None)
    if not isinstance(sharding, NamedSharding) or AxisType.Explicit not in sharding.mesh.axis_types:
        return leaf
    return jax.device_put(leaf, NamedSharding(_automatic_mesh(sharding.mesh), sharding.spec))


def model_sharding(tree: PyTree, mesh: Mesh) -> PyTree:
    """Placement of the arrays of a model on a mesh, one sharding per leaf.

    Each is replicated along the first axis of the mesh, which divides the examples. Along a second axis its
    own largest axis is divided, of those that can be divided evenly; without one, it is replicated.
    """

    def leaf_sharding(leaf: Any) -> NamedSharding:
        devices, shape = mesh.devices.shape, jnp.shape(leaf)
        even = [i for i, size in enumerate(shape) if len(devices) > 1 and size and size % devices[1] == 0]
        if not even:
            return NamedSharding(mesh, PartitionSpec())
        largest = max(even, key=lambda i: shape[i])
        # No axis is named after it, as in the output of compiled programs: another spelling would recompile.
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, mesh.axis_names[1]))

    return jax.tree.map(leaf_sharding, tree)


def local_copy(name: str, leaf: Any) -> Any:
    """The copy of an array that this process holds, where other processes hold copies too."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if not leaf.is_fully_replicated:
        raise ValueError(
            f"`{name}` must hold arrays that are whole on this process; one of shape {leaf.shape} is "
            "divided among processes"
        )
    return leaf.addressable_data(0)
