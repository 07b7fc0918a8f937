"""The HTML page of all results: every question with its tables and pictures."""

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from experiments._common.figures import sizes_of
from experiments._common.policy import with_policy
from experiments._common.record import Record, Table, address, file_inside, read_record
from jaxnn._files import write_atomically

_CODE = re.compile(r"`([^`]+)`")
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
figcaption { font-size: .9em; padding: .3rem 0; }
summary { cursor: pointer; }
summary h2 { display: inline; }
.contents { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; }
.contents { list-style: none; padding: 0; }
.contents img { display: block; width: 100%; height: 7rem; object-fit: cover; object-position: left top; }
.contents img { background: white; border: 1px solid #8884; margin-bottom: .3rem; }
/* On a small screen a picture scrolls instead of shrinking until it cannot be read. */
figure img { max-width: max(100%, 38rem); height: auto; background: white; vertical-align: bottom; }
@media (max-width: 40rem) { td { white-space: nowrap; } }
"""


def write_page(
    folder: Path,
    docstrings: Mapping[str, str],
    failures: Mapping[str, str],
    seconds: Mapping[str, float] | None = None,
) -> None:
    """Write `folder/index.html`: a section for each experiment that has results, or failed.

    Args:
        folder: contains a folder of results for each experiment: its metrics.json, and its pictures. One that
            is damaged, or refers to files outside of the folder, is not shown, but named.
        docstrings: by the name of the experiment, in the order of the page; the first line is the question.
        failures: by the name of the failed experiment, the message; nothing else of it is shown.
        seconds: by the name of the experiment, how long it took, if known.
    """
    sections = {
        name: _failed(name, docstrings[name], failures[name])
        if name in failures
        else _section_or_note(folder / name, docstrings[name])
        for name in docstrings
        if name in failures or (folder / name / "metrics.json").exists()
    }
    known = seconds or {}
    contents = "\n".join(
        _entry(folder / name, docstrings[name].splitlines()[0], known.get(name), failed=name in failures)
        for name in sections
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
<ol class="contents">
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


def _entry(folder: Path, question: str, seconds: float | None, *, failed: bool) -> str:
    """A line of the contents, with the first picture in small, if there is one."""
    time = "" if seconds is None else f" <small>{seconds:.0f} s</small>"
    try:
        file = None if failed else next(iter(read_record(folder).pictures), None)
        source = None if file is None else (address(folder, file), file_inside(folder, file))[0]
    except Exception:  # the section says what is wrong
        source = None
    image = "" if source is None else f'<img src="{source}" alt="" loading="lazy">'
    return f'<li><a href="#{folder.name}">{image}{_text(question)}</a>{time}</li>'


def _prose(text: str) -> str:
    """A text, escaped, with the code that is marked by backticks."""
    return _CODE.sub(r"<code>\1</code>", _text(text))


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
    paragraphs = "\n".join(f"<p>{_prose(paragraph)}</p>" for paragraph in rest)
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in record.settings.items())
    tables = "\n".join(map(_table, record.tables))
    pictures = "\n".join(_picture(folder, file, title) for file, title in record.pictures.items())
    links = ((address(folder, file), title) for file, title in record.pages.items())
    pages = "\n".join(f'<p><a href="{link}">{_text(title)}</a></p>' for link, title in links)
    return f"""<section id="{name}">
<details open>
<summary><h2>{_text(question)}</h2></summary>
{paragraphs}
<p><code>python -m experiments.{name}</code>: {_text(settings)}</p>
{tables}
{pages}
{pictures}
</details>
<p><a href="#">Back to the contents</a></p>
</section>"""


def _picture(folder: Path, file: str, title: str) -> str:
    """A picture, linked to its file in full size, and its title below."""
    with Image.open(file_inside(folder, file), formats=("PNG", "GIF")) as picture:
        width, height = (round(size * _CSS_DOTS / _DOTS) for size in picture.size)
    source = address(folder, file)
    return (
        f'<figure class="wide"><a href="{source}"><img src="{source}" alt="{_text(title)}" '
        f'width="{width}" height="{height}" loading="lazy"></a>'
        f"<figcaption>{_text(title)}</figcaption></figure>"
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
