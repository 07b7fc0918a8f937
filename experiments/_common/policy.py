"""The content security policy of a generated page: it loads and runs only what it needs."""

import base64
import hashlib
import re

_HEAD = '<meta charset="utf-8">\n'


def with_policy(page: str, images: str = "'none'") -> str:
    """Add a policy to a page, before all that it concerns.

    Nothing is loaded from elsewhere, and nothing is sent. The styles and scripts in the page are allowed by
    their hashes, so that one that gets in by another way is not run.

    Args:
        page: the HTML, with foreign text escaped, and `<meta charset="utf-8">` on a line of its head.
        images: where images may come from.
    """
    policy = (
        f"default-src 'none'; style-src {_hashes('style', page)}; script-src {_hashes('script', page)}; "
        f"img-src {images}; base-uri 'none'; form-action 'none'"
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
    return page.replace(_HEAD, _HEAD + meta, 1)


def _hashes(tag: str, page: str) -> str:
    """The hashes of the elements of a tag without attributes."""
    contents = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [hashlib.sha256(content.encode()).digest() for content in contents]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"
