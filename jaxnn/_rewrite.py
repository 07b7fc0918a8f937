"""Names for the intermediates of any function."""

from typing import TypeVar

from jax.ad_checkpoint import checkpoint_name

Value = TypeVar("Value")


def tap(value: Value, name: str) -> Value:
    """Name an intermediate value of a function; the value itself is unchanged.

    The name lives in the function's jaxpr (the primitive `name`), so it survives `jax.jit`,
    `jax.vmap` and `jax.grad`, costs nothing when compiled, and asks nothing of the function around it.

    Args:
        value: any array or pytree of arrays.
        name: what to call it, such as `"hidden_0"`.

    Returns:
        `value`, unchanged.

    Raises:
        TypeError: `name` is not a string.

    Example:
        >>> import jax, jaxnn
        >>> jax.make_jaxpr(lambda x: jaxnn.tap(2 * x, "doubled"))(1.0).eqns[-1].params["name"]
        'doubled'
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string; got {type(name).__name__} {name!r}")
    return checkpoint_name(value, name)
