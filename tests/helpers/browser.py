"""A headless Chromium for tests of pages, where one is installed (Debian's chromium and chromium-driver)."""

import shutil

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip


def open_browser(profile):
    """A new browser with an empty profile, in that folder; skips where there is none."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("needs chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(paths[1]))


def set_width(browser, width, height=800):
    """Show the page as on a screen of that many pixels."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def complaints(browser):
    """What the browser has logged since it was asked last: errors, and addresses that could not be had."""
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] != "INFO"]
