"""Wide tables cannot be read on a phone: there each row is shown as a card, its cells one below another."""

import re

TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
ROW = re.compile(r"<tr\b.*?</tr>", re.DOTALL)
HEAD = re.compile(r"<th\b[^>]*>(.*?)</th>", re.DOTALL)
CELL = re.compile(r"<td\b([^>]*)>(.*?)</td>", re.DOTALL)
TAG = re.compile(r"<[^>]*>")
SENTENCE = (
    48  # letters in a cell of the last column: with as many it explains the others
)
WIDE = 64  # letters in a row: of fewer, the numbers are better compared in columns


def stackable(html: str) -> str:
    """The page with each cell of a wide table told what its column is called; see site.css."""
    return TABLE.sub(lambda table: _labelled(table[0]), html)


def _labelled(table: str) -> str:
    heads = [" ".join(TAG.sub("", head).split()) for head in HEAD.findall(table)]
    rows = [
        [TAG.sub("", text).strip() for _, text in CELL.findall(r)]
        for r in ROW.findall(table)
    ]
    widest = max((sum(map(len, cells)) for cells in rows), default=0)
    if not heads or widest < WIDE or "colspan" in table:
        return table

    def row(found: re.Match[str]) -> str:
        labels = iter(heads)

        def cell(found: re.Match[str]) -> str:
            label = next(labels, "")
            empty = "<img" not in found[2] and not TAG.sub("", found[2]).strip()
            return f'<td data-label="{label}"{found[1]}>{"" if empty else found[2].strip()}</td>'

        return CELL.sub(cell, found[0])

    start, rest = table.split(">", 1)
    last = max(len(cells[-1]) for cells in rows if cells)
    kind = "stacked explained" if last >= SENTENCE else "stacked"
    if 'class="' in start:
        start = start.replace('class="', f'class="{kind} ', 1)
    else:
        start += f' class="{kind}"'
    return f"{start}>{ROW.sub(row, rest)}"
