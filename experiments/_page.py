"""One page of all results: every question, its table, its pictures."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments._results import write_whole

_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 0 1rem 3rem; }
section { border-top: 1px solid #8888; margin-top: 2.5rem; }
h2 { margin: 1.5rem 0 .5rem; }
code { font-size: .9em; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border-bottom: 1px solid #8884; padding: .2rem .8rem .2rem 0; text-align: left; }
figure { margin: 1.5rem 0; }
figure img { max-width: 100%; height: auto; background: white; }
figcaption { font-size: .9rem; }
"""


def write_page(folder: Path, docstrings: Mapping[str, str]) -> None:
    """Write `folder/index.html` from the metrics.json of each experiment that has one, in the order given.

    Args:
        folder: holds a folder of results for each experiment.
        docstrings: by the experiments' names; the first line is the question.
    """
    found = {name: folder / name / "metrics.json" for name in docstrings}
    found = {name: path for name, path in found.items() if path.exists()}
    contents = "\n".join(
        f'<li><a href="#{name}">{html.escape(docstrings[name].splitlines()[0])}</a></li>' for name in found
    )
    sections = "\n".join(
        _section(name, docstrings[name], json.loads(path.read_text())) for name, path in found.items()
    )
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
<p>Every question that was asked, the numbers, and the pictures.</p>
<ol>
{contents}
</ol>
{sections}
</body>
</html>
"""
    write_whole(folder / "index.html", lambda path: path.write_text(text, encoding="utf-8"))


def _section(name: str, docstring: str, found: Mapping[str, Any]) -> str:
    question, *rest = docstring.split("\n\n")
    paragraphs = "\n".join(f"<p>{html.escape(paragraph)}</p>" for paragraph in rest)
    settings = ", ".join(f"{key} {_said(value)}" for key, value in found["settings"].items())
    tables = "\n".join(_table(**table) for table in found["tables"])
    pictures = "\n".join(
        f'<figure><img src="{name}/{file}" alt="{html.escape(caption)}" loading="lazy">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for file, caption in found["pictures"].items()
    )
    return f"""<section id="{name}">
<h2>{html.escape(question)}</h2>
{paragraphs}
<p><code>python -m experiments.{name}</code>: {html.escape(settings)}</p>
{tables}
{pictures}
</section>"""


def _said(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(title: str, columns: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return f"""<div class="wide"><table><caption>{html.escape(title)}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""
