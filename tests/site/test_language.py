"""The language of the project: one sentence per line in Markdown, and the standard terms of the field."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {DOCS / "gallery.md"}  # by experiments/_gallery.py, from docstrings
PAGES = [
    ROOT / "README.md",
    *sorted(
        page
        for page in DOCS.rglob("*.md")
        if page not in GENERATED and not any(part.startswith("_") for part in page.relative_to(DOCS).parts)
    ),
]
AREAS = {
    "docs": [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))],
    "library": sorted((ROOT / "jaxnn").rglob("*.py")),
    "experiments": sorted((ROOT / "experiments").rglob("*.py")),
}
# What not to write (a regular expression, of whole words, in any case): what to write instead.
WORDS = {
    r"slopes?": "gradient, derivative",
    r"answer(s|ed|ing)?": "output (of a model), prediction (a class)",
    r"rightly": "correctly",
    r"anew": "again; 'does not recompile'",
    r"by lot": "at random",
    r"told apart|tells? (\w+ ){1,4}apart": "distinguished, distinguishes",
    r"recognized by identity": "compared by identity (a static argument)",
    r"of its own accord": "by itself",
    r"whatever": "any, everything that",
    r"the wanted one": "the target class",
    r"drawn round": "sampled around",
    r"known, not traced|known and not traced": "for concrete values",
}
FORBIDDEN = [(re.compile(rf"\b(?:{word})\b", re.IGNORECASE), instead) for word, instead in WORDS.items()]
WRITTEN_BY_A_COMMAND = re.compile(r"<!-- begin: (?P<mark>.*?) -->.*?<!-- end: (?P=mark) -->", re.DOTALL)
NOT_PROSE = re.compile(  # front matter, code, tables written by a command, comments
    rf"\A---\n.*?^---$|^(?P<fence>```+|~~~+).*?^(?P=fence)`*$|{WRITTEN_BY_A_COMMAND.pattern}|<!--.*?-->",
    re.MULTILINE | re.DOTALL,
)
NOT_A_SENTENCE = ("|", "#", "<", "![")  # tables, headings, HTML, pictures
ABBREVIATIONS = ("e.g.", "i.e.", "vs.", "al.", "cf.", "approx.", "resp.", "T.")
END_OF_SENTENCE = re.compile(r"(\S*[.?!][*_\"')\]]*) +[*_\"'(\[`]*(?P<next>[A-Z`])")
ITEM = re.compile(r"\s*([-*+]|\d+\.) +")
BOLD_LEAD = re.compile(r"\*\*[^*]+[.?!]\*\* ")  # the title of an item: "**Samples.** The network ..."


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def blanked(pattern, text):
    """The text with all that matches made empty, its lines kept so that they can be counted."""
    return pattern.sub(lambda found: "\n" * found[0].count("\n"), text)


def complaints_of_lines(text):
    """The lines with two sentences, and those that begin in the middle of one."""
    before = ""
    for number, line in enumerate(blanked(NOT_PROSE, text).splitlines(), 1):
        if line.lstrip().startswith(NOT_A_SENTENCE) or not line.strip():
            before = ""
            continue
        prose = BOLD_LEAD.sub("", ITEM.sub("", line, count=1), count=1).strip()
        for end in END_OF_SENTENCE.finditer(re.sub(r"`[^`]*`", "`code`", prose)):
            if not end[1].strip("*_\"'()[]").endswith(ABBREVIATIONS):
                yield number, f"two sentences, at {end[0]!r}"
        if before and not ITEM.match(line) and prose[0].islower() and not prose.startswith("jaxnn "):
            yield number, f"{prose[:30]!r} goes on with a sentence of the line before"
        before = line


def complaints_of_words(text):
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, instead in FORBIDDEN:
            for found in pattern.finditer(line):
                yield number, f"{found[0]} -> {instead}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_line_of_markdown_is_one_sentence(page):
    found = complaints_of_lines(page.read_text(encoding="utf-8"))
    assert not (lines := [f"{name_of(page)}:{number}: {text}" for number, text in found]), "\n".join(lines)


@pytest.mark.parametrize("area", AREAS)
def test_the_terms_are_those_of_the_field(area):
    lines = [
        f"{name_of(path)}:{number}: {complaint}"
        for path in AREAS[area]
        if path.exists()
        for number, complaint in complaints_of_words(
            blanked(WRITTEN_BY_A_COMMAND, path.read_text(encoding="utf-8"))
        )
    ]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("One sentence. Another one.", 1),
        ("Is it one? `jaxnn` says no.", 1),
        ("- An item (see Adam et al. 2015). And more.", 1),
        ("A sentence that\nis broken in two.", 2),
        ("```python\nx = 1  # One. Two.\n```\nOne. Two.", 4),
    ],
)
def test_two_sentences_and_broken_ones_are_found(text, number):
    assert [found for found, _ in complaints_of_lines(text)] == [number]


@pytest.mark.parametrize(
    "text",
    [
        "A method by T. Rashid, e.g. Grad-CAM (Adam et al. 2015), `a.b. C` vs. Others at 0.5 of it.",
        "| a cell. Another | one. More |",
        "**Samples.** One sentence about `n_samples`.\nThe next one.\njaxnn begins this one.",
        "- An item.\n  Its second sentence.",
        "```text\nOne. Two.\n```",
        "<!-- begin: A -->\nOne. Two.\n<!-- end: A -->",
    ],
)
def test_one_sentence_is_left_alone(text):
    assert list(complaints_of_lines(text)) == []


@pytest.mark.parametrize(
    "word", ["a slope", "Answered", "told apart", "tells the two digits apart", "by lot"]
)
def test_words_of_our_own_are_found(word):
    ((number, complaint),) = complaints_of_words(f"first line\nsomething {word}.")
    assert number == 2
    assert " -> " in complaint


@pytest.mark.parametrize("word", ["negative_slope", "alphabet", "a lot", "unanswerable", "two parts of it"])
def test_other_words_are_left_alone(word):
    assert list(complaints_of_words(word)) == []
