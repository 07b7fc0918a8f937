"""Tables of sentences are too wide for a phone: there each row is shown as a card, its cells one below another."""

import re

TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
HEAD = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
CELL = re.compile(r"<td\b([^>]*)>(.*?)</td>", re.DOTALL)
TAG = re.compile(r"<[^>]*>")
LONG = 48  # letters in a cell: more are a sentence, and fewer are numbers to be compared in columns


def stackable(html: str) -> str:
    """The page with each cell of a table of sentences told what its column is called; see site.css."""
    return TABLE.sub(lambda table: _labelled(table[0]), html)


def _labelled(table: str) -> str:
    heads = [" ".join(TAG.sub("", head).split()) for head in HEAD.findall(table)]
    cells = [TAG.sub("", cell).strip() for _, cell in CELL.findall(table)]
    if not heads or max(map(len, cells), default=0) < LONG or "colspan" in table:
        return table

    def row(found: re.Match[str]) -> str:
        labels = iter(heads)

        def cell(found: re.Match[str]) -> str:
            label = next(labels, "")
            empty = "<img" not in found[2] and not TAG.sub("", found[2]).strip()
            return f'<td data-label="{label}"{found[1]}>{"" if empty else found[2].strip()}</td>'

        return CELL.sub(cell, found[0])

    start, rest = table.split(">", 1)
    if 'class="' in start:
        start = start.replace('class="', 'class="stacked ', 1)
    else:
        start += ' class="stacked"'
    return f"{start}>{ROW.sub(row, rest)}"
