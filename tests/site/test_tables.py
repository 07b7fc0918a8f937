"""Wide tables become cards on a phone; narrow ones, such as of a few numbers, stay what they are."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("tables", Path(__file__).parents[2] / "docs" / "tables.py")
tables = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(tables)

HEAD = '<table class="docutils"><thead><tr class="row-odd"><th class="head"><p>I <em>ask</em></p></th>'
HEAD += '<th class="head"><p>cost</p></th></tr></thead><tbody>'
SENTENCE = "a sentence that is much too long for a column beside another one"


def test_the_cells_of_a_wide_table_know_their_columns():
    row = f'<tr class="row-even"><td><p>x</p></td>\n<td class="r"><p>{SENTENCE}</p></td></tr>'
    found = tables.stackable(
        f"<p>a</p>{HEAD}{row}<tr><td><p>y</p></td><td> <p></p> </td></tr></tbody></table><p>b</p>"
    )
    assert found.startswith('<p>a</p><table class="stacked explained docutils">')
    assert f'<td data-label="I ask"><p>x</p></td>\n<td data-label="cost" class="r"><p>{SENTENCE}</p>' in found
    assert '<td data-label="I ask"><p>y</p></td><td data-label="cost"></td>' in found
    assert found.endswith("</table><p>b</p>")


def test_a_wide_table_of_numbers_explains_nothing():
    row = f"<tr><td>{SENTENCE}</td><td>1</td></tr></tbody></table>"
    assert tables.stackable(HEAD + row).startswith('<table class="stacked docutils">')


@pytest.mark.parametrize(
    "rest",
    [
        f'<tr><td>1</td><td title="{SENTENCE}">2</td></tr>' * 50 + "</tbody></table>",
        f'<tr><td colspan="2">{SENTENCE}</td></tr></tbody></table>',
    ],
)
def test_other_tables_stay(rest):
    assert tables.stackable(HEAD + rest) == HEAD + rest


def test_a_table_without_a_head_stays():
    table = f"<table><tr><td>{SENTENCE}</td></tr></table>"
    assert tables.stackable(table) == table
