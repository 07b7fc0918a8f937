"""Check a built site: `python docs/check.py site`. Every link, anchor and image leads somewhere, within it.

Links to other sites are allowed, and not followed; scripts, styles, fonts and images from there are not.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FOLLOWED = {
    ("a", "href"),
    ("area", "href"),
    ("form", "action"),
}  # not loaded unasked
ADDRESSES = {
    "href",
    "src",
    "poster",
    "action",
    "xlink:href",
}  # attributes of one each
NOT_LOADED = {  # kinds of link elements
    "canonical",
    "search",
    "prev",
    "next",
    "index",
    "author",
    "copyright",
}
NOWHERE = {"about", "blob", "data", "javascript", "mailto", "tel"}
BETWEEN = re.compile(r",\s+|(?<=\d[wx]),")  # the parts of a srcset
IN_STYLE = re.compile(
    r"""url\(\s*(?:"([^"]*)"|'([^']*)'|([^)'"\s]*))\s*\)|@import\s+["']([^"']+)["']"""
)


class Page(HTMLParser):
    """A page's links and anchors.

    Attributes:
        links: where each leads, and whether the browser loads it unasked.
        anchors: the places that a link can lead to.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.links: list[tuple[str, bool]] = []
        self.anchors: set[str] = {"top"}  # which browsers know of every page
        self._in_style = False
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(
        self, tag: str, attrs: list[tuple[str, str | None]]
    ) -> None:
        """Note what an element links to, and what it is called."""
        given = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.anchors |= {given["id"]} if "id" in given else set()
        self.anchors |= {given["name"]} if tag == "a" and "name" in given else set()
        kinds = set(given.get("rel", "").lower().split())
        loaded = tag != "link" or not kinds & NOT_LOADED
        self.links += [
            (given[name], loaded and (tag, name) not in FOLLOWED)
            for name in sorted(ADDRESSES & given.keys())
        ]
        more = [
            each.split()[0]
            for each in BETWEEN.split(given.get("srcset", ""))
            if each
        ]
        more += [given["data"]] if tag == "object" and "data" in given else []
        more += addresses(given.get("style", ""))
        self.links += [(link, True) for link in more]

    def handle_data(self, data: str) -> None:
        """Note what a style sheet in the page loads."""
        if self._in_style:
            self.links += [(link, True) for link in addresses(data)]

    def handle_endtag(self, tag: str) -> None:
        """A style sheet ends here, if one was read."""
        self._in_style = False


def addresses(style: str) -> list[str]:
    """What a style sheet loads: pictures, fonts and other style sheets."""
    return [next(filter(None, found), "") for found in IN_STYLE.findall(style)]


def complaints(site: Path) -> list[str]:
    """What is wrong with a site, a line each."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"{site}: no page"]
    links = {path: page.links for path, page in pages.items()}
    for path in sorted(site.rglob("*.css")):
        text = path.read_text(encoding="utf-8")
        links[path] = [(link, True) for link in addresses(text)]
    for path, of_file in links.items():
        for link, loaded in dict.fromkeys(of_file):
            if wrong := _wrong(site, path, link, loaded, pages):
                found.append(f"{path.relative_to(site)}: {link!r} {wrong}")
    return found


def _wrong(
    site: Path, path: Path, link: str, loaded: bool, pages: dict[Path, Page]
) -> str | None:
    try:
        parts = urlsplit(link.strip())
    except ValueError:
        return "is no address"
    if parts.scheme in NOWHERE:
        return None
    if parts.scheme or parts.netloc:
        return "is loaded from another site" if loaded else None
    target = (
        path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    )
    if target.is_dir():
        target = target / "index.html"
    if not target.is_relative_to(site):
        return "leads out of the site"
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
    root = Path(site)
    found = complaints(root)
    print(
        "\n".join(found)
        or f"{len(list(root.rglob('*.html')))} pages, no broken link, image or anchor"
    )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
