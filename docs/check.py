"""Check a built site: `python docs/check.py site`. Every link, anchor and image leads somewhere, within it.

Links to other sites are allowed, and not followed; scripts, styles, fonts and images from there are not.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {
    ("img", "src"),
    ("script", "src"),
    ("link", "href"),
    ("source", "src"),
    ("iframe", "src"),
}
NOT_LOADED = {
    "canonical",
    "search",
    "prev",
    "next",
    "index",
    "author",
    "copyright",
}  # kinds of link elements


class Page(HTMLParser):
    """A page's links and anchors.

    Attributes:
        links: where each leads, and whether the browser loads it unasked.
        anchors: the places that a link can lead to.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[tuple[str, bool]] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        """Note what an element links to, and what it is called."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        for name in ("href", "src"):
            if name in given:
                loaded = (tag, name) in LOADED and given.get(
                    "rel", ""
                ) not in NOT_LOADED
                self.links.append((given[name], loaded))


def complaints(site: Path) -> list[str]:
    """What is wrong with a site, a line each."""
    paths = sorted(site.rglob("*.html"))
    pages = {path: Page(path) for path in paths}
    found = [] if pages else [f"{site}: no page"]
    for path, page in pages.items():
        for link, loaded in page.links:
            if wrong := _wrong(path, link, loaded, pages):
                found.append(f"{path.relative_to(site)}: {link!r} {wrong}")
    return found


def _wrong(
    path: Path, link: str, loaded: bool, pages: dict[Path, Page]
) -> str | None:
    parts = urlsplit(link)
    if parts.scheme in ("data", "mailto", "javascript"):
        return None
    if parts.scheme or parts.netloc:
        return "is loaded from another site" if loaded else None
    target = (
        path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    )
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return "leads to no file"
    if (
        parts.fragment
        and target in pages
        and unquote(parts.fragment) not in pages[target].anchors
    ):
        return "leads to no place on that page"
    return None


def main(site: str) -> int:
    """Print what is wrong; the exit status is 1 if anything is."""
    root = Path(site).resolve()
    found = complaints(root)
    print(
        "\n".join(found)
        or f"{len(list(root.rglob('*.html')))} pages, no broken link, image or anchor"
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
