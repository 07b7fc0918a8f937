"""Bad values for one argument, and what a call makes of it."""

import math
import warnings

import numpy as np

from tests.bad_input.calls import run


def nothing(*_):
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


def spoiled(good):
    """The bad values for an argument, by their names: those for any, and those that an array suggests."""
    values = dict(ANYWHERE)
    if isinstance(good, np.ndarray):
        values["one element less"] = good[:-1]
        values["one axis more"] = good[None]
        values["objects"] = good.astype(object)
        if good.dtype.kind == "f":
            values["NaN in it"] = np.where(np.arange(good.size).reshape(good.shape) == 1, np.nan, good)
            values["complex numbers"] = good + 1j
        elif good.dtype.kind == "i":
            values["integers that wrap"] = good.astype(np.int64) + 2**32
    if isinstance(good, tuple) and good and isinstance(good[0], int | float):
        values["one entry more"] = (*good, good[-1])
        values["text in it"] = (*good[:-1], "a")
        values["NaN in it"] = (*good[:-1], math.nan)
        values["reversed"] = good[::-1]
    return values


def outcome(name, arguments, parameter, value):
    """What a call with one bad value comes to: "named", "accepted", or the error that does not name it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            run(name, arguments | {parameter: value})
        except (TypeError, ValueError, NotImplementedError, OSError) as error:
            if f"`{parameter}" in str(error):
                return "named"
            return f"{type(error).__name__}: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return "accepted"
