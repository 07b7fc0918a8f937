"""Every Python block of the README and the docs runs, in the order of its page."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import experiments.__main__ as listing
import jaxnn

pytestmark = pytest.mark.optimized

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.rglob("*.md") if not page.relative_to(DOCS).parts[0].startswith("_")),
]
# Pages whose code takes long; the site executes the tutorial at each build, too.
LONG_PAGES = {"attacks.md", "dreams.md", "models.md", "rules.md", "training.md", "tutorial.md"}
GENERATED = {"draw/index.html"}  # with the site
BLOCK = re.compile(r"^```(?:python|\{code-cell\} python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _takes_long(page):
    return page.name in LONG_PAGES or page.parent.name == "guides"


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.long] * _takes_long(page)) for page in PAGES],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_the_code_of_the_page_runs(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec"), names)  # noqa: S102
    plt.close("all")
    if page.name == "README.md":
        assert "[0 1 2 3 4 5 6 7 8 9]" in capsys.readouterr().out
        assert (tmp_path / "pictures.png").stat().st_size > 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http") and target not in GENERATED:
            assert (page.parent / target).exists(), target


NAME = re.compile(r"\b(attribution|attacks|datasets|dreaming|losses|plot|rules|weights)\.([A-Za-z]\w*)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_names_that_a_page_tells_of_are_there(page):
    code = re.findall(r"`[^`\n]+`", BLOCK.sub("", page.read_text()))
    for family, name in NAME.findall(" ".join(code)):
        assert hasattr(getattr(jaxnn, family), name), f"{family}.{name}"


@pytest.mark.parametrize(("section", "family"), [("Captum", "attribution"), ("Foolbox", "attacks")])
def test_names_beside_those_of_another_library_are_there(section, family):
    text = (ROOT / "docs" / "migrating.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    ours = " ".join(row.split(" | ")[1] for row in text.splitlines() if row.startswith("| `"))
    codes = [code for code in re.findall(r"`([^`]+)`", ours) if not re.match(r"\w+=", code)]
    names = {re.match(r"\w*", code)[0] for code in codes}
    others = {"", "jaxnn", "attack", "attacks", "input", "clipped", "success", "distance", "queries"}
    assert len(names - others) > 10
    assert [name for name in names - others if not hasattr(getattr(jaxnn, family), name)] == []


def test_no_registry_and_no_wrong_install_is_named():
    for page in PAGES:
        assert "pip install jaxnn" not in page.read_text()


def test_the_list_of_experiments_names_each_with_its_question(capsys):
    questions = {name: text.splitlines()[0] for name, text in listing.docstrings().items()}
    assert {"back_query", "own_image"} <= set(questions)
    assert all(question.endswith("?") for question in questions.values())
    listing.main()
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in questions)
