"""A browser for the tests of pages."""

from __future__ import annotations

import shutil

import pytest

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chrome-headless-shell",
)


@pytest.fixture(scope="module")
def chromium():
    """The first browser of BROWSERS that is on PATH, started; without one the tests are skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    executables = [shutil.which(name) for name in BROWSERS]
    installed = [path for path in executables if path is not None]
    if not installed:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is on PATH")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=installed[0], args=["--no-sandbox"])
        yield browser
        browser.close()
