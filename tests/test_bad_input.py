"""Bad input over every parameter of every public function: refused by name, or taken for a reason.

Some 13,000 calls with `--long`, of which a sample is made by default.
"""

import inspect
import zlib
from fnmatch import fnmatchcase

import pytest

from tests.helpers.accepted import ACCEPTED, NAMED_OTHERWISE
from tests.helpers.calls import calls
from tests.helpers.params import long
from tests.helpers.spoils import outcome, spoils

PARTS = 64  # of the calls, of which the first is made by default


def cases(name):
    """The bad calls of a function: the parameter, the name of the value, and the value."""
    call = calls()[name]
    for parameter, kind in call.parameters.items():
        if kind.kind is not inspect.Parameter.VAR_KEYWORD:
            given = None if kind.default is inspect.Parameter.empty else kind.default
            for label, value in spoils(call.arguments.get(parameter, given)).items():
                yield parameter, label, value


def is_listed(table, name, parameter, label):
    """Whether a table of reasons lists a value of a parameter."""
    return any(
        fnmatchcase(f"{name} {parameter}", pattern) and (labels == "*" or label in labels.split(" | "))
        for entries in table.values()
        for pattern, labels in entries.items()
    )


@pytest.mark.parametrize("part", [0, *long(*range(1, PARTS))])
def test_bad_input_is_refused_by_name_or_taken_for_a_reason(part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # "text" is a path, too
    wrong, count = [], 0
    for name in calls():
        for parameter, label, value in cases(name):
            if zlib.crc32(f"{name} {parameter} {label}".encode()) % PARTS != part:
                continue
            count += 1
            came = outcome(calls()[name], parameter, value)
            table = {"named": None, "accepted": ACCEPTED}.get(came, NAMED_OTHERWISE)
            if table is not None and not is_listed(table, name, parameter, label):
                wrong.append(f"{name}({parameter}={label}): {came[:200]}")
    assert not wrong, "\n".join(wrong)
    assert count > 100
