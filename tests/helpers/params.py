"""Parameters of which only some are tested by default."""

import pytest


def long(*values):
    """The values as parameters of long tests, a single parameter each."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


def some(values, *chosen):
    """The values as parameters, of which only the chosen ones are tested by default."""
    return [value if value in chosen else pytest.param(value, marks=pytest.mark.long) for value in values]
