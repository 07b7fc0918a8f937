"""Parameters of which only some are tested by default."""

import pytest


def long(*values):
    """The values as parameters of long tests, a single parameter each."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]
