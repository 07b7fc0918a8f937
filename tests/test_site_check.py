"""The check of the built site finds what is broken."""

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("check", Path(__file__).parent.parent / "docs" / "check.py")
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
    )
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
    ],
)
def test_what_is_broken_is_named(site, broken, said):
    (site / "sub" / "other.html").write_text(broken)
    (complaint,) = check.complaints(site)
    assert complaint.startswith("sub/other.html: ")
    assert said in complaint
    assert check.main(str(site)) == 1


def test_an_empty_folder_is_no_site(tmp_path):
    assert check.main(str(tmp_path)) == 1
