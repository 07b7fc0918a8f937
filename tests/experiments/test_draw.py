"""The page to draw on: its arithmetic, its strokes, its keys, in a real browser."""

import itertools
import math
import re

import jax
import numpy as np
import pytest

import jaxnn
from experiments import draw
from experiments._common.digits import load_digits
from experiments._common.networks import train_by_the_book
from tests.helpers.browser import complaints, open_browser, set_width

pytestmark = pytest.mark.optimized

DIGITS = load_digits("mnist-5k")


@pytest.fixture(scope="module")
def networks():
    trained, _ = train_by_the_book(DIGITS, hidden=(60,), epochs=3, rate=0.1, seed=0)
    deep = jaxnn.init(
        jax.random.key(1), (784, 20, 15, 10), activation="tanh", output_activation="sigmoid",
        bias_init=jax.nn.initializers.normal(),
    )  # fmt: skip
    return {"trained": trained, "deep": deep}


@pytest.fixture(scope="module")
def page(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("draw")
    for name, network in networks.items():
        jaxnn.save(folder / f"{name}.jaxnn", network)
    draw.main(networks=tuple(folder / f"{name}.jaxnn" for name in networks), output=folder / "page")
    return folder / "page" / "index.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = open_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.quit()


@pytest.fixture
def opened(chromium, page):
    set_width(chromium, 1280)
    chromium.get(page.as_uri())
    yield chromium
    assert complaints(chromium) == []


def settle(browser):
    """Wait until the page has drawn what it was sent."""
    browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
    )


def prediction(browser):
    settle(browser)
    return browser.find_element("id", "answer").text


def stroke(browser, points):
    """Draw through points given as fractions of the sheet."""
    from selenium.webdriver.common.action_chains import ActionChains

    canvas = browser.find_element("id", "drawing")
    size = canvas.size["width"]
    pixels = [(round((x - 0.5) * size), round((y - 0.5) * size)) for x, y in points]
    actions = (
        ActionChains(browser, duration=5).move_to_element_with_offset(canvas, *pixels[0]).click_and_hold()
    )
    for (x, y), (next_x, next_y) in itertools.pairwise(pixels):
        actions.move_by_offset(next_x - x, next_y - y)
    actions.release().perform()


@pytest.mark.long
def test_the_page_has_nothing_from_outside(page):
    text = page.read_text()
    assert not re.findall(r"(?:src|href)\s*=|url\(|https?:|import\s*\(|fetch\(", text)


def test_it_computes_what_the_library_computes(opened, networks):
    rng = np.random.default_rng(0)
    for number, network in enumerate(networks.values()):
        for x in (*np.asarray(DIGITS.test_inputs[:3]), rng.uniform(0.01, 1, 784)):
            y = rng.uniform(0.01, 0.99, 10)
            found = opened.execute_script(
                """const [number, x, y] = arguments, network = networks[number], values = query(network, x);
                const all = [...values, backquery(network, y), saliency(network, values, 3)];
                return all.map((v) => [...v])""",
                number, x.tolist(), y.tolist(),
            )  # fmt: skip
            *_, outputs, back, gradient = map(np.asarray, found)
            hidden = [np.asarray(values) for values in found[1:-3]]
            _, named = jaxnn.capture(network, x.astype(np.float32))
            for i, values in enumerate(hidden):
                np.testing.assert_allclose(values, named[f"hidden_{i}"], atol=1e-4)
            np.testing.assert_allclose(outputs, jaxnn.query(network, x), atol=1e-4)
            np.testing.assert_allclose(back, jaxnn.backquery(network, y), atol=1e-4)
            expected = jaxnn.attribution.saliency(network, x.astype(np.float32), 3)
            np.testing.assert_allclose(gradient, expected, atol=1e-4)


ONE = [(0.55, 0.2), (0.5, 0.5), (0.46, 0.8)]
ZERO = [(0.5 + 0.2 * math.sin(a), 0.5 - 0.3 * math.cos(a)) for a in np.linspace(0, 2 * math.pi, 25)]
SEVEN = [(0.28, 0.25), (0.5, 0.24), (0.72, 0.25), (0.6, 0.5), (0.5, 0.8)]


@pytest.mark.parametrize(("points", "digit"), [(ONE, "1"), (ZERO, "0"), (SEVEN, "7")])
def test_a_stroke_is_classified(opened, points, digit):
    assert prediction(opened) == "draw something"
    stroke(opened, points)
    assert prediction(opened) == digit
    bars = opened.execute_script(
        "return [...document.querySelectorAll('#outputs .value')].map((v) => v.textContent)"
    )
    assert int(np.argmax([float(bar) for bar in bars])) == int(digit)
    assert opened.find_element("id", "back-title").text == f"Back query of a {digit}"
    opened.find_element("id", "clear").click()
    assert prediction(opened) == "draw something"


def test_what_it_sees_lies_as_the_training_digits_do(opened):
    def mass():
        seen = np.reshape(opened.execute_script("return [...seen()]"), (28, 28)) - 0.01
        places = np.arange(28) + 0.5
        return seen.sum(1) @ places / seen.sum(), seen.sum(0) @ places / seen.sum(), seen

    stroke(opened, [(0.1, 0.1), (0.1, 0.35)])
    settle(opened)
    down, across, seen = mass()
    assert down == pytest.approx(14, abs=0.2)
    assert across == pytest.approx(14, abs=0.2)
    assert 19 <= np.sum(seen.max(axis=1) > 0.25) <= 21
    opened.find_element("id", "centered").click()
    down, across, _ = mass()
    assert (down, across) == (pytest.approx(0.225 * 28, abs=0.3), pytest.approx(2.8, abs=0.3))


def test_what_is_top_heavy_is_seen_whole(opened):
    dense = [(x, y) for y in (0.1, 0.13, 0.16, 0.19) for x in (0.2, 0.8)]
    stroke(opened, [*dense, (0.8, 0.1), (0.6, 0.9)])
    settle(opened)
    seen = np.reshape(opened.execute_script("return [...seen()]"), (28, 28))
    rows = np.flatnonzero(seen.max(axis=1) > 0.25)
    assert (rows[0], rows[-1]) == (8, 27)  # all 20 of its rows, down to the edge


def test_by_keyboard_alone(opened, networks):
    from selenium.webdriver.common.keys import Keys

    canvas = opened.find_element("id", "drawing")
    opened.execute_script("document.querySelector('#drawing').focus()")
    canvas.send_keys(*[Keys.ARROW_UP] * 9, " ", *[Keys.ARROW_DOWN] * 18, " ")
    assert prediction(opened) == "1"
    canvas.send_keys(*[Keys.ARROW_LEFT] * 5, " ", *[Keys.ARROW_UP] * 3, " ", "u")
    assert prediction(opened) == "1"
    about = opened.find_element("id", "about").text
    canvas.send_keys("n")
    settle(opened)
    assert opened.find_element("id", "about").text != about
    assert len(opened.find_elements("css selector", "#hidden canvas")) == 2
    canvas.send_keys("c")
    assert prediction(opened) == "draw something"
    # Every control can be reached by the tabulator key.
    reached = []
    opened.execute_script("document.activeElement.blur()")
    from selenium.webdriver.common.action_chains import ActionChains

    for _ in range(8):
        ActionChains(opened).send_keys(Keys.TAB).perform()
        reached.append(opened.switch_to.active_element.get_attribute("id"))
    assert {"network", "asked", "centered", "drawing", "undo", "clear"} <= set(reached)


def test_what_is_held_down_counts_once(opened):
    opened.execute_script("document.querySelector('#drawing').focus()")
    for repeat in (False, True, True):
        key = {"type": "keyDown", "key": " ", "code": "Space", "autoRepeat": repeat}
        opened.execute_cdp_cmd("Input.dispatchKeyEvent", key)
    assert opened.execute_script("return [keyDown, strokes.length]") == [True, 1]
    assert (
        opened.find_element("id", "said").text == "Pen down, at 14 from the left and 14 from the top, of 28."
    )
    opened.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": "U", "code": "KeyU"})
    assert opened.execute_script("return [keyDown, strokes.length]") == [False, 0]


def test_what_is_drawn_beyond_the_sheet_is_not_drawn(opened):
    stroke(opened, [(0.5, 0.5), (0.8, 0.5), (1.2, 0.55), (1.2, 0.7), (0.9, 0.7), (0.7, 0.7)])
    (lines,) = opened.execute_script("return strokes")
    assert [len(line) for line in lines] == [4, 3]
    assert np.max(np.concatenate(lines)) == 28
    np.testing.assert_allclose(lines[0][-1], [28, 0.525 * 28], atol=0.2)
    np.testing.assert_allclose(lines[1][0], [28, 0.7 * 28], atol=0.2)
    opened.find_element("id", "undo").click()
    assert prediction(opened) == "draw something"


def touch(browser, kind, *points):
    """Touch the sheet at points given as fractions of it, all fingers at once."""
    left, top, size = browser.execute_script(
        "const b = document.querySelector('#drawing').getBoundingClientRect();return [b.left, b.top, b.width]"
    )
    fingers = [{"x": left + x * size, "y": top + y * size, "id": i} for i, (x, y) in enumerate(points)]
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})


def test_a_finger_draws_and_a_second_one_does_not(opened):
    set_width(opened, 360)
    opened.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
    opened.execute_script("document.querySelector('#drawing').scrollIntoView({block: 'center'})")
    settle(opened)
    scrolled = opened.execute_script("return scrollY")
    touch(opened, "touchStart", ONE[0])
    touch(opened, "touchMove", ONE[1])
    touch(opened, "touchStart", ONE[1], (0.9, 0.9))
    touch(opened, "touchMove", ONE[2], (0.9, 0.1))
    touch(opened, "touchEnd")
    assert prediction(opened) == "1"
    ((line,),) = opened.execute_script("return strokes")
    assert max(x for x, _ in line) < 0.6 * 28
    assert opened.execute_script("return [scrollY, pointer]") == [scrolled, None]
    touch(opened, "touchStart", (0.2, 0.2))
    touch(opened, "touchEnd")
    assert opened.execute_script("return strokes.length") == 2
    opened.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


def test_the_right_button_does_not_draw(opened):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(opened).context_click(opened.find_element("id", "drawing")).perform()
    assert prediction(opened) == "draw something"


def test_an_empty_sheet_has_no_saliency(opened):
    settle(opened)
    assert opened.find_element("id", "why-title").text == "Saliency"
    assert shown(opened, "why") == {255}
    stroke(opened, ONE)
    settle(opened)
    assert opened.find_element("id", "why-title").text == "Saliency of a 1"
    assert len(shown(opened, "why")) > 10


def shown(browser, name):
    """The values in the picture of that name, colors and all."""
    return set(
        browser.execute_script(
            "const from = document.getElementById(arguments[0]), size = [from.width, from.height];"
            "const copy = new OffscreenCanvas(...size).getContext('2d');"
            "copy.drawImage(from, 0, 0);"
            "return [...copy.getImageData(0, 0, ...size).data]",
            name,
        )
    )


def test_a_unit_is_drawn_in_the_range_of_its_activation(opened, networks):
    opened.find_element("css selector", "#network option:last-child").click()  # of tanh
    stroke(opened, SEVEN)
    settle(opened)
    seen = np.asarray(opened.execute_script("return [...seen()]"), np.float32)
    values = jaxnn.capture(networks["deep"], seen)[1]["hidden_0"]
    drawn = opened.execute_script(
        "return [...document.querySelector('#hidden canvas').getContext('2d').getImageData(0, 0, 20, 1).data]"
    )
    np.testing.assert_allclose(np.reshape(drawn, (20, 4))[:, 0], 255 * (1 + values) / 2, atol=1.01)
    above = opened.find_element("id", "active").text.split(", then ")[0]
    assert above == f"In the upper half: {int((values > 0).sum())} of 20"


def test_any_digit_is_queried_backwards(opened, networks):
    opened.execute_script(
        "const s = document.querySelector('#asked'); s.value = '4'; s.dispatchEvent(new Event('change'))"
    )
    settle(opened)
    target = jaxnn.datasets.encode_labels(4)
    prior = jaxnn.prior(DIGITS.inputs, key=jax.random.key(0))
    typical = jaxnn.backquery(networks["trained"], target, method="typical", prior=prior).x
    expected = {"back": jaxnn.backquery(networks["trained"], target), "typical": typical}
    for name, title in {"back": "Back query of a 4", "typical": "Typical 4"}.items():
        assert opened.find_element("id", f"{name}-title").text == title
        shown = opened.execute_script(
            f"return [...document.querySelector('#{name}').getContext('2d').getImageData(0, 0, 28, 28).data]"
        )
        np.testing.assert_allclose(np.reshape(shown, (784, 4))[:, 0] / 255, expected[name], atol=1 / 255)


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_it_fits_any_screen(opened, width):
    set_width(opened, width)
    settle(opened)
    assert opened.execute_script("return document.scrollingElement.scrollWidth") <= width
    box = opened.find_element("id", "drawing").rect
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert box["width"] >= 250
    opened.execute_script("document.documentElement.style.fontSize = '200%'")  # for those who see badly
    settle(opened)
    assert opened.execute_script("return document.scrollingElement.scrollWidth") <= width
    opened.execute_script("document.documentElement.style.fontSize = ''")
    outputs = opened.find_element("id", "outputs").rect
    assert outputs["y"] + outputs["height"] - box["y"] < 600  # both are seen at once while one draws
    for name in ("undo", "clear", "network", "asked"):
        assert opened.find_element("id", name).rect["height"] >= 44  # a finger's size


@pytest.mark.long("all but the first")
@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((64, 10), {}, r"`networks` must have 784 inputs and 10 outputs"),
        (
            (784, 8, 10),
            {"activation": "relu"},
            "`networks` must end in sigmoids, after layers of sigmoid, tanh",
        ),
        ((784, 8, 10), {"output_activation": "identity"}, "`networks` must end in sigmoids"),
    ],
)
def test_networks_that_the_page_cannot_evaluate_are_refused(tmp_path, sizes, options, message):
    jaxnn.save(tmp_path / "n", jaxnn.init(jax.random.key(0), sizes, **options))
    with pytest.raises(ValueError, match=message):
        draw.main(networks=(tmp_path / "n",), output=tmp_path / "page")


def test_networks_of_one_name_are_refused(tmp_path):
    paths = (tmp_path / "a" / "n.jaxnn", tmp_path / "b" / "n.jaxnn")
    for path in paths:
        path.parent.mkdir()
        jaxnn.save(path, jaxnn.init(jax.random.key(0), (784, 8, 10)))
    with pytest.raises(ValueError, match="`networks` must have distinct file names"):
        draw.main(networks=paths, output=tmp_path / "page")


@pytest.mark.long
def test_a_network_without_hidden_units_is_shown(chromium, tmp_path):
    jaxnn.save(tmp_path / "flat.jaxnn", jaxnn.init(jax.random.key(0), (784, 10)))
    draw.main(networks=(tmp_path / "flat.jaxnn",), output=tmp_path)
    chromium.get((tmp_path / "index.html").as_uri())
    stroke(chromium, ONE)
    assert prediction(chromium) in set("0123456789")
    assert not chromium.find_element("id", "hidden-units").is_displayed()
    assert complaints(chromium) == []


def test_images_of_another_size_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`data` must hold images of 28 x 28"):
        draw.main(data="digits", output=tmp_path)
