"""What to pass in the place of what was passed: the ends of error messages, for common mistakes."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import jax
import jax.numpy as jnp

_LINEN = "Pass jaxnn.from_linen(module, variables)"


def advice_on_model(model: Any) -> str:
    """What to pass in the place of something that is no model; empty if that is not known."""
    if _is_linen(model) or (isinstance(model, MethodType) and _is_linen(model.__self__)):
        return _LINEN
    if hasattr(model, "init") and hasattr(model, "apply") and not callable(model):  # Haiku's `Transformed`
        return "Pass jaxnn.from_haiku(transformed, params)"
    is_pair = isinstance(model, tuple | list) and len(model) == 2 and not callable(model)
    if is_pair and callable(function := next(iter(model))):
        is_linen = isinstance(function, MethodType) and _is_linen(function.__self__)
        return _LINEN if is_linen else "Pass jax.tree_util.Partial(function, params)"
    method = next((each for each in ("predict_proba", "predict") if hasattr(model, each)), None)
    if method is not None and not callable(model):
        return f"Pass jaxnn.from_numpy(model.{method}, shape)"
    return ""


def _is_linen(value: Any) -> bool:
    classes = [cls for cls in type(value).__mro__ if cls.__name__ == "Module"]
    return any((cls.__module__ or "").startswith("flax.linen") for cls in classes)


def advice_on_batch(x: Any, output: Any) -> str:
    """Advice where an input may be a batch of examples: of as many rows as the output."""
    rows = _rows(x)
    shape: tuple[int, ...] = getattr(output, "shape", ())
    return _batch(rows) if rows is not None and len(shape) > 0 and shape[0] == rows else ""


def advice_on_failed_call(shape_of: Callable[[Any], Any], x: Any) -> str:
    """Advice where a model fails for an input, and takes its first row, or a batch of it alone.

    Args:
        shape_of: `shape_of(x)`, which raises where the model does.
        x: the input.
    """
    rows = _rows(x)
    if rows is not None and _takes(shape_of, jax.tree.map(lambda leaf: leaf[0], x)):
        return _batch(rows)
    if _takes(shape_of, jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], x)):
        return (
            "`model` takes a batch, and `x` is one example: pass `batched=True` to the adapter, or "
            "`lambda x: model(x[None])[0]`"
        )
    return ""


def _batch(rows: int) -> str:
    return f"If `x` is a batch of {rows} examples, use jax.vmap or jaxnn.map_examples"


def _rows(x: Any) -> int | None:
    """The length of the first axis of all arrays, if they have one in common and another behind it."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(x)]
    if max(map(len, shapes), default=0) < 2:
        return None
    lengths = {shape[0] if len(shape) > 0 else 0 for shape in shapes}
    return lengths.pop() if len(lengths) == 1 and min(lengths) > 0 else None


def _takes(shape_of: Callable[[Any], Any], x: Any) -> bool:
    try:
        shape_of(x)
    except Exception:
        return False
    return True


def advice_on_labels(output: Any, target: Any) -> str:
    """Advice where a loss fails for an integer label, of an output with several elements."""
    is_label = jnp.shape(target) == () and jnp.issubdtype(jnp.result_type(target), jnp.integer)
    if not is_label or not jnp.shape(output):
        return ""
    return (
        "For integer labels pass loss=jaxnn.losses.cross_entropy, or targets by jaxnn.datasets.encode_labels"
    )


def with_advice(message: str, advice: str) -> str:
    """The message of an error, and advice behind it, if there is any."""
    return f"{message.rstrip('. ')}. {advice}" if advice else message
