"""`python -m experiments --all`: every experiment is run, and one page shows the results."""

import html.parser
import importlib
import json
import math
import os
import re
import sys
import urllib.parse
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from PIL import Image

import experiments.__main__ as listing
from experiments._common.page import write_page
from experiments._common.results import save_results

pytestmark = pytest.mark.optimized

FINE = '''"""Is <this> fine & "safe"?

It is <b>not</b> bold.
"""
import json, pathlib, sys
from PIL import Image
def main(data="mnist-5k", output="x"):
    pass
folder = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
folder.mkdir(parents=True)
Image.new("L", (8, 8), 100).save(folder / "one.png")
table = {"title": "All <of> it", "columns": ["a", "b & c"], "rows": [["1", "<script>"], ["2", "x"]]}
found = {"settings": {"data": "<d>", "sizes": [2, 3]}, "arguments": sys.argv[1:], "tables": [table, table],
         "pictures": {"one.png": "A \\"picture\\" <of> it"}}
(folder / "metrics.json").write_text(json.dumps(found))
'''
BROKEN = '"""Does it break?"""\nimport sys\ndef main(output):\n    pass\nsys.exit(3)\n'
PLAIN = FINE.replace("Is <this>", "Is that").replace('data="mnist-5k", ', "")


class Page(html.parser.HTMLParser):
    """What a reader of the page sees, by tag."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.images, self.links, self.ids = [], {}, [], [], []
        self.thumbnails = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag == "img":
            (self.images if found["alt"] else self.thumbnails).append(found)
        if tag == "a" and found["href"] != "#":  # back to the contents
            self.links.append(found["href"])
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in self.VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]][-1] += data


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """A package of three small experiments in the place of the real one; returns its folder of results."""
    folder = tmp_path / "experiments"
    folder.mkdir()
    scripts = {"__init__": "", "broken": BROKEN, "fine": FINE, "plain": PLAIN, "own_image": BROKEN}
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(listing, "__file__", str(folder / "__main__.py"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def test_all_run_though_one_fails_and_the_failure_is_reported(mini, capsys):
    # What an earlier run left of the one that fails is not to pass for this run's.
    (mini / "broken").mkdir(parents=True)
    (mini / "broken" / "metrics.json").write_text('{"settings": {}, "tables": [], "pictures": {}}')
    with pytest.raises(SystemExit) as stopped:
        listing.main(run_all=True, data="mnist", output=mini)
    assert stopped.value.code == 1
    shown = capsys.readouterr().out
    rows = {line.split()[1]: line for line in shown.splitlines() if line.startswith("│")}
    assert sorted(rows) == ["broken", "fine", "plain"]  # own_image needs a picture of the reader's
    assert "failed (3)" in rows["broken"]
    assert "failed" not in rows["fine"] + rows["plain"]
    page = Page((mini / "index.html").read_text())
    assert page.ids == ["broken", "fine", "plain"]
    assert page.texts["h2"][0] == "Does it break?"
    assert any("failed (3)" in text for text in page.texts["p"])
    assert all((mini / image["src"]).is_file() for image in page.images)


def test_what_an_earlier_run_left_is_on_no_page_of_this_one(mini, monkeypatch):
    for name in ("fine", "plain"):
        (mini / name).mkdir(parents=True)
        (mini / name / "metrics.json").write_text('{"settings": {}, "tables": [], "pictures": {}}')
    pages = []

    def run(*_, **__):
        if (mini / "index.html").exists():
            pages.append(Page((mini / "index.html").read_text()).ids)
        return Done()

    monkeypatch.setattr(listing.subprocess, "run", run)
    listing.run(listing.Console(quiet=True), "mnist-5k", mini)
    assert pages == [[], []]  # after the first and the second, which wrote nothing


def test_the_exit_status_is_0_where_all_went_well(mini):
    (mini.parent / "experiments" / "broken.py").unlink()
    with pytest.raises(SystemExit) as stopped:
        listing.main(run_all=True, output=mini)
    assert stopped.value.code == 0
    assert Page((mini / "index.html").read_text()).ids == ["fine", "plain"]


def test_the_data_is_passed_only_if_it_is_an_option(mini, monkeypatch):
    listing.run(listing.Console(quiet=True), "mnist", mini)
    arguments = {
        name: json.loads((mini / name / "metrics.json").read_text())["arguments"]
        for name in ("fine", "plain")
    }
    assert arguments["fine"] == ["--output", str(mini / "fine"), "--data", "mnist"]
    assert arguments["plain"] == ["--output", str(mini / "plain")]


def test_the_real_experiments_take_what_they_are_run_with():
    names = [name for name in listing.docstrings() if name not in listing.NOT_IN_ALL]
    assert {"back_query", "lesions", "mistakes", "playground"} <= set(names)
    assert listing.takes_data("lesions")
    assert not listing.takes_data("playground")


def results(folder, name, tables, pictures, settings=None):
    (folder / name).mkdir()
    for file in pictures:
        Image.new("L", (150, 100)).save(folder / name / file)
    found = {"settings": settings or {}, "tables": tables, "pictures": pictures}
    (folder / name / "metrics.json").write_text(json.dumps(found))


def test_the_page_shows_every_question_table_and_picture(tmp_path):
    tables = [
        {"title": "First", "columns": ["x", "y"], "rows": [["1", "2"], ["3", "4"]]},
        {"title": "Second", "columns": ["z"], "rows": [["5"]]},
    ]
    results(tmp_path, "b", tables, {"p.png": "A picture", "q.png": "Another"}, {"seed": 3, "sizes": [2, 1]})
    results(tmp_path, "a", tables[:1], {"p.png": "A third"})
    write_page(tmp_path, {"b": "Why b?\n\nSo.\n\nAnd\nso.", "a": "Why a?", "c": "Never run?"}, {})
    page = Page((tmp_path / "index.html").read_text())
    assert page.texts["h2"] == ["Why b?", "Why a?"]  # in the order given
    assert page.links == ["#b", "#a", "b/p.png", "b/q.png", "a/p.png"]
    assert page.ids == ["b", "a"]
    assert page.texts["caption"] == ["First", "Second", "First"]
    assert page.texts["th"] == ["x", "y", "z", "x", "y"]
    assert page.texts["td"] == ["1", "2", "3", "4", "5", "1", "2", "3", "4"]
    assert [image["src"] for image in page.images] == ["b/p.png", "b/q.png", "a/p.png"]
    assert [image["alt"] for image in page.images] == ["A picture", "Another", "A third"]
    assert {(image["width"], image["height"]) for image in page.images} == {("96", "64")}
    assert {"So.", "And\nso."} <= set(page.texts["p"])
    assert any("seed 3, sizes 2-1" in text for text in page.texts["p"])
    assert "python -m experiments.b" in page.texts["code"]
    assert all((tmp_path / image["src"]).is_file() for image in page.images)


def test_text_of_an_experiment_is_text_on_the_page(mini):
    listing.run(listing.Console(quiet=True), "mnist-5k", mini)
    text = (mini / "index.html").read_text()
    assert "<script>" not in text
    assert "<b>" not in text
    page = Page(text)
    assert page.texts["h2"][1] == 'Is <this> fine & "safe"?'
    assert page.texts["td"][:2] == ["1", "<script>"]
    assert page.texts["th"][:2] == ["a", "b & c"]
    assert page.texts["caption"][0] == "All <of> it"
    assert page.images[0]["alt"] == 'A "picture" <of> it'
    assert any("It is <b>not</b> bold." in text for text in page.texts["p"])
    assert any("data <d>, sizes 2-3" in text for text in page.texts["p"])


FOREIGN = [
    'a" onerror="alert(1).png',
    "<b>&'.png",
    "a%20b#c?d.png",
    "javascript:alert(1).png",
    "caf\udce9 é.png",
]


@pytest.mark.parametrize("file", FOREIGN)
def test_the_name_of_a_file_is_an_address_and_nothing_else(tmp_path, file):
    results(tmp_path, "a", [], {file: "\ud800 <i>"}, {"<u>": "\ud800"})
    record = tmp_path / "a" / "metrics.json"
    record.write_text(
        record.read_text().replace('"tables"', f'"pages": {{{json.dumps(file)}: "<p>"}}, "tables"')
    )
    write_page(tmp_path, {"a": "Why a?"}, {})
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    (image,) = page.images
    assert image.keys() == {"src", "alt", "width", "height", "loading"}
    assert image["alt"] == r"\ud800 <i>"
    assert page.links == ["#a", image["src"], image["src"]]
    assert re.fullmatch(r"a/[\w.~%-]+", image["src"], re.ASCII)
    assert os.fsdecode(urllib.parse.unquote_to_bytes(image["src"])) == f"a/{file}"
    assert page.texts.keys() <= {
        "html", "head", "title", "style", "body", "h1", "h2", "p", "ol", "li", "a", "section", "code",
        "figure", "figcaption", "details", "summary",
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["pictures", "pages"])
@pytest.mark.parametrize(
    "file", ["../secret.png", "/secret.png", "link.png", "folder/../../secret.png", ".", "x\0"]
)
def test_what_leads_out_of_the_folder_is_not_linked(tmp_path, file, kind):
    results(tmp_path, "a", [], {"fine.png": "Fine"})
    results(tmp_path, "b", [], {})
    Image.new("L", (150, 100)).save(tmp_path / "secret.png")
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "secret.png")
    file = str(tmp_path / file[1:]) if file.startswith("/") else file
    (tmp_path / "b" / "metrics.json").write_text(json.dumps({kind: {file: "Secret"}}))
    write_page(tmp_path, {"a": "Why a?", "b": "Why b?"}, {})
    page = Page((tmp_path / "index.html").read_text())
    assert page.links == ["#a", "#b", "a/fine.png"]
    assert len(page.images) == 1
    assert page.ids == ["a", "b"]
    assert ": the results cannot be shown: " in page.texts["p"][-1]


def test_a_file_in_a_folder_of_the_folder_is_linked(tmp_path):
    results(tmp_path, "a", [], {})
    (tmp_path / "a" / "more").mkdir()
    Image.new("L", (150, 100)).save(tmp_path / "a" / "more" / "x.png")
    (tmp_path / "a" / "metrics.json").write_text(json.dumps({"pictures": {"more/x.png": "X"}}))
    write_page(tmp_path, {"a": "Why a?"}, {})
    assert Page((tmp_path / "index.html").read_text()).links == ["#a", "a/more/x.png"]


TABLE = {"title": "t", "columns": ["c"], "rows": [["1"]]}
DAMAGED = {
    "empty": b"",
    "cut": b'{"settings": {}, "tab',
    "binary": b"\xff\xfe\0\xd8",
    "nested": b"[" * 100_000,
    "list": b"[]",
    "settings": b'{"settings": 3}',
    "pictures": b'{"pictures": ["a"]}',
    "title": b'{"pictures": {"a": 3}}',
    "table": json.dumps({"tables": [TABLE | {"title": None}]}).encode(),
    "column": json.dumps({"tables": [TABLE | {"columns": 3}]}).encode(),
    "rows": json.dumps({"tables": [TABLE | {"rows": [[1.0]]}]}).encode(),
    "more": json.dumps({"tables": [TABLE | {"x": 1}]}).encode(),
    "no picture": b'{"pictures": {"text.png": "x"}}',
    "other picture": b'{"pictures": {"bitmap.png": "x"}}',
    "bomb": b'{"pictures": {"bomb.gif": "x"}}',
    "missing": b'{"pictures": {"gone.png": "x"}}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_results_are_a_note_beside_the_others(tmp_path, content):
    for name in ("a", "b", "c"):
        results(tmp_path, name, [TABLE], {"fine.png": "Fine"})
    (tmp_path / "b" / "text.png").write_text("text")
    Image.new("L", (8, 8)).save(tmp_path / "b" / "bitmap.png", format="BMP")
    (tmp_path / "b" / "bomb.gif").write_bytes(b"GIF89a" + b"\xff" * 4 + bytes(3))
    (tmp_path / "b" / "metrics.json").write_bytes(content)
    write_page(tmp_path, {"a": "Why a?", "b": "Why b?", "c": "Why c?"}, {})
    page = Page((tmp_path / "index.html").read_text())
    assert page.ids == ["a", "b", "c"]
    assert [image["src"] for image in page.images] == ["a/fine.png", "c/fine.png"]
    notes = [text for text in page.texts["p"] if "the results cannot be shown" in text]
    assert len(notes) == 1
    assert ("metrics.json is damaged: " in notes[0]) != (b".png" in content or b".gif" in content)


def test_the_experiments_run_with_this_python(mini, monkeypatch):
    commands = []
    monkeypatch.setattr(listing.subprocess, "run", lambda command, check: commands.append(command) or Done())
    listing.run(listing.Console(quiet=True), "mnist-5k", mini)
    assert [command[:3] for command in commands] == [
        [sys.executable, "-m", f"experiments.{name}"] for name in ("broken", "fine", "plain")
    ]


class Done:
    returncode = 0


# --- save_results


def small_results(folder, **changes):
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    figure.suptitle("A line")
    options = {"settings": {"seed": 0}, "tables": [], "figures": {"line": figure}, "metrics": {"a": 1.0}}
    save_results(folder, **options | changes)


@pytest.mark.parametrize(
    ("metrics", "settings", "message"),
    [
        ({"a": {"b": [[1.0], [2.0, math.nan]]}}, {}, r"finite numbers; a\.b\[1\]\[1\] is nan$"),
        ({"loss": -math.inf}, {"rate": 3.0}, "loss is -inf; a smaller `rate` may help$"),
    ],
)
def test_a_number_that_is_not_finite_is_named_and_nothing_is_written(tmp_path, metrics, settings, message):
    with pytest.raises(ValueError, match=message):
        small_results(tmp_path, metrics=metrics, settings=settings)
    assert not list(tmp_path.iterdir())
    plt.close("all")


def test_new_pictures_never_stand_beside_old_numbers(tmp_path, monkeypatch):
    small_results(tmp_path)
    monkeypatch.setattr(plt.Figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small_results(tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    plt.close("all")


def test_brackets_in_a_path_are_printed_as_they_are(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small_results(Path("[red]x[/blue]"))
    assert "are in [red]x[/blue]/" in capsys.readouterr().out
    monkeypatch.setattr(listing, "docstrings", dict)
    assert listing.run(listing.Console(), "mnist-5k", Path("[a]")) == 0
    assert "The page of all results: [a]/index.html" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_reported_before_anything_runs(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")

    def never(*_, **__):
        raise AssertionError("something ran")

    monkeypatch.setattr(listing.subprocess, "run", never)
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SystemExit, match="`output` must be a writable folder"):
            listing.main(run_all=True, output=output)
    for name in listing.docstrings():
        script = importlib.import_module(f"experiments.{name}")
        if hasattr(script, "load_digits"):
            monkeypatch.setattr(script, "load_digits", never)
        given = (tmp_path / "none.png",) if name == "own_image" else ()
        with pytest.raises(SystemExit, match="`output` must be a writable folder"):
            script.main(*given, output=tmp_path / "file")


def test_the_contents_have_thumbnails_times_and_a_way_back(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    Image.new("RGB", (30, 20)).save(folder / "p.png")
    (folder / "metrics.json").write_text(json.dumps({"pictures": {"p.png": "A picture of `x`"}}))
    write_page(tmp_path, {"a": "Why?\n\nBecause `train` did."}, {}, {"a": 12.4})
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    assert [image["src"] for image in page.thumbnails] == ["a/p.png"]
    assert page.texts["small"] == ["12 s"]
    assert page.texts["figcaption"] == ["A picture of `x`"]
    assert page.texts["code"] == ["train", "python -m experiments.a"]
    assert '<a href="#">Back to the contents</a>' in text
