"""The policy of generated pages: they load and run what they need, and what gets in otherwise is not run."""

import base64
import hashlib
import html.parser
import json

import jax
import pytest
from PIL import Image

import jaxnn
from experiments import draw
from experiments._common.page import write_page
from tests.helpers.browser import complaints, open_browser

pytestmark = pytest.mark.optimized

PRIOR = jaxnn.prior(jax.random.uniform(jax.random.key(1), (40, 784)), key=jax.random.key(2))
IMAGES = {"index": "'self' file:", "draw": "'none'"}


class Elements(html.parser.HTMLParser):
    """The elements of a page in their order, with the texts of its styles and scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.open = [], {"style": [], "script": []}, None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.texts.get(tag, []).append("")
        self.open = tag

    def handle_endtag(self, tag):
        self.open = None

    def handle_data(self, data):
        if self.open in self.texts:
            self.texts[self.open][-1] += data


def make(name, folder):
    """One of the two pages."""
    if name == "draw":
        networks = {"one <script>": jaxnn.init(jax.random.key(0), (784, 10))}
        (folder / "index.html").write_text(
            draw.page(networks, {"one <script>": "</script>"}, PRIOR), encoding="utf-8"
        )
    else:
        (folder / "a").mkdir()
        Image.new("L", (150, 100)).save(folder / "a" / "x.png")
        (folder / "a" / "metrics.json").write_text(json.dumps({"pictures": {"x.png": "X"}}))
        write_page(folder, {"a": "Why a?"}, {})
    return folder / "index.html"


def hashes(texts):
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"


@pytest.mark.parametrize("name", IMAGES)
def test_a_page_allows_what_is_written_in_it_alone(name, tmp_path):
    page = Elements(make(name, tmp_path).read_text(encoding="utf-8"))
    policies = [
        (i, attributes["content"])
        for i, (_, attributes) in enumerate(page.tags)
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    ((place, policy),) = policies
    assert [tag for tag, _ in page.tags[:place]] == ["html", "head", "meta"]  # before all that it concerns
    assert dict(directive.split(" ", 1) for directive in policy.split("; ")) == {
        "default-src": "'none'",
        "style-src": hashes(page.texts["style"]),
        "script-src": hashes(page.texts["script"]),
        "img-src": IMAGES[name],
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # What the hashes do not allow is not used.
    attributes = {key for _, attributes in page.tags for key in attributes}
    assert not [key for key in attributes if key.startswith("on") or key == "style"]
    assert {"style", "script"}.isdisjoint(tag for tag, attributes in page.tags if attributes.get("src"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = open_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


INJECTED = """<script>window.ran = 1</script><img src="x:" onerror="window.ran = 2">
<style>h1 { display: none }</style><iframe src="data:text/html,x"></iframe></body>"""


@pytest.mark.parametrize("name", IMAGES)
def test_what_gets_into_a_page_is_not_run(chromium, name, tmp_path):
    path = make(name, tmp_path)
    chromium.get(path.as_uri())
    images = "return [...document.images].map((image) => image.complete && image.naturalWidth)"
    assert chromium.execute_script(images) == ([150, 150] if name == "index" else [])  # in the contents, too
    assert chromium.find_element("tag name", "h1").is_displayed()
    assert chromium.execute_script("return getComputedStyle(document.body).fontFamily").startswith(
        "system-ui"
    )
    assert complaints(chromium) == []
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", INJECTED), encoding="utf-8")
    chromium.get(path.as_uri())
    assert chromium.execute_script("return window.ran") is None
    assert chromium.find_element("tag name", "h1").is_displayed()
    assert len([line for line in complaints(chromium) if "Content Security Policy" in line]) >= 4
