"""The site, by Sphinx: `python -m sphinx -W -b html docs site`.

The tutorial is run while the site is built, its pictures are drawn, and the page to draw on is made of
networks trained for it. A public name without an entry in the reference fails the build.
"""

import hashlib
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from sphinx.errors import SphinxError

# Of the pages' own processes, too: XLA's alarms are not for the reader.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

import jaxnn  # noqa: E402

from names import public_names  # noqa: E402
from tables import stackable  # noqa: E402

project = "jaxnn"
copyright = "the jaxnn authors, Apache-2.0"  # noqa: A001
release = jaxnn.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
autosummary_generate = False  # the tables link to the entries below them
exclude_patterns = ["_built", "_cache"]
default_role = "code"

html_theme = "furo"
html_title = f"jaxnn {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = [
    "_built",
    "llms.txt",
]  # looked for before anything is written there
BUILT, CACHE = DOCS / "_built", DOCS / "_cache"


def clear_what_is_old() -> None:
    """Throw away what an earlier build has drawn, unless the code that drew it is still the same."""
    code = (
        path
        for part in ("jaxnn", "experiments")
        for path in (ROOT / part).rglob("*")
    )
    told = hashlib.sha256()
    for path in sorted(
        path for path in code if path.suffix in (".py", ".js", ".css", ".html")
    ):
        told.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    stamp = CACHE / "code.sha256"
    if not stamp.is_file() or stamp.read_text() != told.hexdigest():
        for folder in (BUILT, CACHE):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        stamp.write_text(told.hexdigest())
    BUILT.mkdir(exist_ok=True)


clear_what_is_old()
html_theme_options = {"source_repository": "", "navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_cache_path = str(CACHE / "notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_execution_show_tb = True
nb_merge_streams = True

autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False


PAGE = BUILT / "draw" / "index.html"


def write_the_page_to_draw_on(app: Any) -> None:
    """Train three small networks, once, and write the page that asks them."""
    if PAGE.exists():
        return
    from experiments import draw

    draw.main(output=PAGE.parent)


def tables_as_rst(
    app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]
) -> None:
    """Turn the tables in docstrings, which are Markdown's, into those of reStructuredText."""
    done: list[str] = []
    table: list[list[str]] = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
            continue
        if table:
            done += [".. list-table::", "   :header-rows: 1", ""]
            for cells in (
                row for row in table if not set("".join(row)) <= set("-: ")
            ):
                done += [
                    f"   {'*' if i == 0 else ' '} - {cell}"
                    for i, cell in enumerate(cells)
                ]
            done.append("")
            table = []
        done.append(line)
    lines[:] = done[:-1]


def make_tables_stackable(
    app: Any, name: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Let the tables of a page be read on a phone."""
    if "body" in context:
        context["body"] = stackable(context["body"])


ENTRY = re.compile(
    r"^\.\. (currentmodule|autofunction|autoclass):: (\S+)$", re.MULTILINE
)


def table_at_the_top(app: Any, page: str, source: list[str]) -> None:
    """Begin a page of the reference with a table of its entries."""
    if not page.startswith("reference/"):
        return
    module, entries = "jaxnn", dict[str, list[str]]()
    for kind, name in ENTRY.findall(source[0]):
        if kind == "currentmodule":
            module = name
        else:
            entries.setdefault(module, []).append(f"   {name}")
    start = ".. autosummary::\n   :nosignatures:\n"
    table = "\n\n".join(
        "\n".join([f".. currentmodule:: {name}\n", start, *lines])
        for name, lines in entries.items()
    )
    head, _, rest = source[0].partition("\n## ")
    source[0] = f"{head}\n```{{eval-rst}}\n{table}\n```\n\n## {rest}"


FENCE = re.compile(r"^(```|:::).*?^\1\S*$", re.MULTILINE | re.DOTALL)
NAMES = frozenset(public_names(jaxnn))
SPAN = re.compile(r"(?<![\[`}\w])`([a-z_]+(?:\.\w+)+)`(?![`\]])")


def links_to_the_reference(app: Any, page: str, source: list[str]) -> None:
    """Let a public name in a code span, such as `attribution.saliency`, lead to its entry."""
    if page.startswith("reference/") or page == "changelog":
        return

    def linked(found: re.Match[str]) -> str:
        path = f"jaxnn.{found[1].removeprefix('jaxnn.')}"
        return f"{{py:obj}}`{found[1]} <{path}>`" if path in NAMES else found[0]

    text, done, end = source[0], [], 0
    for fence in FENCE.finditer(text):
        done += [SPAN.sub(linked, text[end : fence.start()]), fence[0]]
        end = fence.end()
    source[0] = "".join([*done, SPAN.sub(linked, text[end:])])


def check_reference(app: Any, env: Any) -> None:
    """Fail unless the reference has an entry for every public name, whatever has been read anew."""
    missing = sorted(NAMES - set(env.get_domain("py").objects))
    if missing:
        raise SphinxError(f"docs/reference has no entry for {', '.join(missing)}")


def setup(app: Any) -> None:
    """Connect what is above."""
    app.connect("builder-inited", write_the_page_to_draw_on)
    app.connect("source-read", table_at_the_top)
    app.connect("source-read", links_to_the_reference)
    app.connect("autodoc-process-docstring", tables_as_rst, priority=400)
    app.connect("env-updated", check_reference)
    app.connect("html-page-context", make_tables_stackable)
