"""Bad values for one argument of a valid call, and what the call comes to."""

import math
import warnings
from typing import Any

import numpy as np

from tests.helpers.calls import Call


def nothing(*_: Any) -> None:
    """A function that returns None."""


ANYWHERE = {
    "None": None,
    "text": "text",
    "bytes": b"bytes",
    "an object": object(),
    "a function of nothing": nothing,
    "True": True,
    "a complex number": 1j,
    "NaN": math.nan,
    "infinity": math.inf,
    "-1": -1,
    "0": 0,
    "0.5": 0.5,
    "2**32 + 1": 2**32 + 1,
    "10**12": 10**12,
    "an empty list": [],
    "a dict": {"a": 1},
    "an empty array": np.zeros(0),
    "an array of three axes": np.ones((2, 7, 5)),
    "an array of text": np.array(["a", "b"]),
}


def spoils(good: Any) -> dict[str, Any]:
    """Bad values by their names: those for any argument, and those that its good value suggests."""
    values = dict(ANYWHERE)
    if isinstance(good, np.ndarray):
        values |= {
            "one row less": good[:-1],
            "one axis more": good[None],
            "objects": good.astype(object),
            "complex numbers": good + 1j,
        }
        if good.dtype.kind == "f":
            values["NaN in it"] = np.where(np.arange(good.size).reshape(good.shape) == 1, np.nan, good)
        elif good.dtype.kind == "i":
            values["integers that wrap"] = good.astype(np.int64) + 2**32
    if isinstance(good, tuple) and good and isinstance(good[0], int | float):
        values |= {
            "one entry more": (*good, good[-1]),
            "text in it": (*good[:-1], "a"),
            "NaN in it": (*good[:-1], math.nan),
            "reversed": good[::-1],
        }
    return values


def outcome(call: Call, parameter: str, value: Any) -> str:
    """What a call with one bad argument comes to: "named", "accepted", or an error without its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call(**{parameter: value})
        except (TypeError, ValueError, NotImplementedError) as error:
            return "named" if f"`{parameter}" in str(error) else f"{type(error).__name__}: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "accepted"
