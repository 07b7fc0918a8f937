"""The HTML page of all results: every question with its tables and pictures."""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from experiments._common.figures import sizes_of
from experiments._common.policy import with_policy
from experiments._common.record import Record, Table, address, file_inside, read_record
from jaxnn._files import write_atomically

_DOTS, _CSS_DOTS = 150, 96  # per inch, of a picture and of the page: text has one size everywhere
_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 0 1rem 3rem; }
h1, h2 { line-height: 1.25; text-wrap: balance; }
h1 { font-size: clamp(1.6rem, 6vw, 2.2rem); }
h2 { font-size: clamp(1.25rem, 5vw, 1.6rem); margin: 1.5rem 0 .5rem; }
section { border-top: 1px solid #8888; margin-top: 2.5rem; }
section > p { max-width: 45rem; }
code { font-size: .9em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border-bottom: 1px solid #8884; padding: .2rem 1.2rem .2rem 0; }
th, td { text-align: left; vertical-align: top; }
figure { margin: 1.5rem 0; }
/* On a small screen a picture scrolls instead of shrinking until it cannot be read. */
figure img { max-width: max(100%, 38rem); height: auto; background: white; vertical-align: bottom; }
@media (max-width: 40rem) { td { white-space: nowrap; } }
"""


def write_page(folder: Path, docstrings: Mapping[str, str], failures: Mapping[str, str]) -> None:
    """Write `folder/index.html`: a section for each experiment that has results, or failed.

    Args:
        folder: contains a folder of results for each experiment: its metrics.json, and its pictures. One that
            is damaged, or refers to files outside of the folder, is not shown, but named.
        docstrings: by the name of the experiment; the first line is the question.
        failures: by the name of the failed experiment, the message; nothing else of it is shown.
    """
    sections = {
        name: _failed(name, docstrings[name], failures[name])
        if name in failures
        else _section_or_note(folder / name, docstrings[name])
        for name in docstrings
        if name in failures or (folder / name / "metrics.json").exists()
    }
    contents = "\n".join(
        f'<li><a href="#{name}">{_text(docstrings[name].splitlines()[0])}</a></li>' for name in sections
    )
    body = "\n".join(sections.values())
    text = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Inside the mind of a network: results</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Inside the mind of a network</h1>
<p>Every question, with its numbers and pictures.</p>
<ol>
{contents}
</ol>
{body}
</body>
</html>
"""
    # A page that is opened as a file has no origin: its images are files.
    text = with_policy(text, images="'self' file:")
    write_atomically(folder / "index.html", lambda path: path.write_text(text, encoding="utf-8"))


def _text(text: str) -> str:
    """A text, escaped; also what is no Unicode, as in the name of a file."""
    return html.escape(text.encode("utf-8", "backslashreplace").decode())


def _failed(name: str, docstring: str, message: str) -> str:
    return f"""<section id="{name}">
<h2>{_text(docstring.splitlines()[0])}</h2>
<p><code>python -m experiments.{name}</code>: {_text(message)}</p>
</section>"""


def _section_or_note(folder: Path, docstring: str) -> str:
    try:
        return _section(folder, docstring, read_record(folder))
    except Exception as error:  # a file of others may be wrong in any way
        return _failed(folder.name, docstring, f"the results cannot be shown: {error}")


def _section(folder: Path, docstring: str, record: Record) -> str:
    name = folder.name
    question, *rest = docstring.split("\n\n")
    paragraphs = "\n".join(f"<p>{_text(paragraph)}</p>" for paragraph in rest)
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in record.settings.items())
    tables = "\n".join(map(_table, record.tables))
    pictures = "\n".join(_picture(folder, file, title) for file, title in record.pictures.items())
    links = ((address(folder, file), title) for file, title in record.pages.items())
    pages = "\n".join(f'<p><a href="{link}">{_text(title)}</a></p>' for link, title in links)
    return f"""<section id="{name}">
<h2>{_text(question)}</h2>
{paragraphs}
<p><code>python -m experiments.{name}</code>: {_text(settings)}</p>
{tables}
{pages}
{pictures}
</section>"""


def _picture(folder: Path, file: str, title: str) -> str:
    """A picture, linked to its file in full size; its title is part of it."""
    with Image.open(file_inside(folder, file), formats=("PNG", "GIF")) as picture:
        width, height = (round(size * _CSS_DOTS / _DOTS) for size in picture.size)
    source = address(folder, file)
    return (
        f'<figure class="wide"><a href="{source}"><img src="{source}" alt="{_text(title)}" '
        f'width="{width}" height="{height}" loading="lazy"></a></figure>'
    )


def _setting(value: Any) -> str:
    return sizes_of(value) if isinstance(value, list) else str(value)


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in table.columns)
    body = "\n".join("<tr>" + "".join(f"<td>{_text(c)}</td>" for c in row) + "</tr>" for row in table.rows)
    return f"""<div class="wide" tabindex="0"><table><caption>{_text(table.title)}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""
