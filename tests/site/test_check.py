"""The check of the built site finds what is broken."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("check", Path(__file__).parents[2] / "docs" / "check.py")
check = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(check)


@pytest.fixture
def site(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "sub" / "index.html").write_text('<h1 id="top">x</h1> <a href="../index.html#there">y</a>')
    (tmp_path / "index.html").write_text(
        '<h2 id="there">x</h2> <img src="picture.png"> <a href="sub">a</a> <a href="sub/index.html#top">b</a>'
        '<a href="#there">c</a> <a href="https://example.org/">d</a> <link rel="search" href="search.html">'
        '<a href="search.html?q=x#">e</a> <a href="#top">f</a> <a href="mailto:a@example.org">g</a>'
        '<style>p { background: url(picture.png) }</style> <i style="background: url(data:,x)"></i>'
        '<img srcset="picture.png 1x, sub/../picture.png 2x">'
    )
    (tmp_path / "sub" / "site.css").write_text('p { background: url("../picture.png") }')
    (tmp_path / "search.html").write_text("")
    return tmp_path


def test_a_whole_site_has_no_complaints(site, capsys):
    assert check.complaints(site) == []
    assert check.main(str(site)) == 0
    assert "3 pages, no broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('<img src="gone.png">', "'gone.png' leads to no file"),
        ('<a href="gone.html">x</a>', "'gone.html' leads to no file"),
        ('<a href="index.html#gone">x</a>', "leads to no place on that page"),
        ('<a href="#gone">x</a>', "leads to no place on that page"),
        ('<script src="https://example.org/x.js"></script>', "is loaded from another site"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "is loaded from another site"),
        ('<link rel="preconnect author-x" href="https://example.org">', "is loaded from another site"),
        ('<a href="index.html?q=x#gone">x</a>', "leads to no place on that page"),
        ('<meta name="viewport"><a href="#viewport">x</a>', "leads to no place on that page"),
        ('<a href=".">x</a>', None),
        ('<a href="..">x</a>', None),
        ('<a href="../nothing/">x</a>', "leads to no file"),
        ('<a href="../..">x</a>', "leads out of the site"),
        ('<a href="../../outside.html">x</a>', "leads out of the site"),
        ('<a href="/">x</a>', "leads out of the site"),
        ('<a href="http://[x">x</a>', "is no address"),
        ('<img srcset="../picture.png 1x, gone.png 2x">', "'gone.png' leads to no file"),
        ('<img srcset="../picture.png 1x, https://example.org/x.png 2x">', "is loaded from another site"),
        ('<source srcset="gone.webp">', "'gone.webp' leads to no file"),
        ('<video poster="gone.png"></video>', "'gone.png' leads to no file"),
        ('<object data="gone.svg"></object>', "'gone.svg' leads to no file"),
        ('<svg><use xlink:href="gone.svg#x"/></svg>', "leads to no file"),
        ('<p style="background: url(gone.png)">x</p>', "'gone.png' leads to no file"),
        ("<style>@import 'https://example.org/x.css';</style>", "is loaded from another site"),
        ("<style>p { background: url( 'gone.png' ) }</style>", "'gone.png' leads to no file"),
    ],
)
def test_what_is_broken_is_named(site, broken, said):
    (site.parent / "outside.html").write_text("")
    (site / "sub" / "other.html").write_text(broken)
    found = check.complaints(site)
    if said is None:
        assert found == []
        return
    (complaint,) = found
    assert complaint.startswith("sub/other.html: ")
    assert said in complaint
    assert check.main(str(site)) == 1


def test_what_a_style_sheet_loads_is_looked_at(site):
    (site / "sub" / "site.css").write_text("p { background: url(gone.png) } q { background: url(data:,x) }")
    assert check.complaints(site) == ["sub/site.css: 'gone.png' leads to no file"]


def test_a_site_by_a_relative_path_is_checked_as_well(site, monkeypatch):
    (site / "index.html").write_text('<a href="search.html#gone">x</a>')
    monkeypatch.chdir(site.parent)
    assert len(check.complaints(Path(site.name))) == 2  # and the place that sub/index.html leads to


def test_an_empty_folder_is_no_site(tmp_path):
    assert check.main(str(tmp_path)) == 1
