"""The page in a real browser: it loads without complaint, sorts by mouse and keyboard, and fits a phone."""

from __future__ import annotations

import pytest

from tests.show.browser import NAMES, Browser, find_browser
from tests.show.study import make_study

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason=f"needs a browser: none of {', '.join(NAMES)} is on PATH"
)

ORDER = "[...document.querySelectorAll('table.sortable tbody tr')].map(row => row.cells[0].textContent)"
SORTED = "[...document.querySelectorAll('table.sortable thead th')].map(header => header.getAttribute('aria-sort'))"
UNFOLD = "document.querySelectorAll('details').forEach(part => part.open = true)"
STATUS = "document.getElementById('sort-status').textContent"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page whose data hold HTML and scripts."""
    study = make_study(tmp_path_factory.mktemp("study") / "out", hostile=True)
    study.make_page()
    return study.out / "report.html"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(running, page) -> Browser:
    return unfolded(running, page)


def unfolded(browser: Browser, page, **options) -> Browser:
    """The page with all its parts open."""
    browser.open(page, **options)
    browser.run(UNFOLD)
    return browser


def test_parts_are_folded_until_they_are_asked_for(browser, page):
    browser.open(page)
    shown = "document.querySelector('table.sortable').checkVisibility()"
    assert browser.run("document.querySelectorAll('details[open]').length") == 0 and not browser.run(shown)
    browser.run("document.querySelectorAll('summary')[0].focus()")
    browser.press("Enter")
    assert browser.run("document.querySelectorAll('details[open]').length") == 1
    browser.run("document.getElementById('tables').click()")
    assert browser.run(shown)
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('details:not([open])').length") == 0, "paper has all of it"
    browser.run("window.dispatchEvent(new Event('afterprint'))")
    assert browser.run("document.querySelectorAll('details[open]').length") == 2


def test_it_loads_without_complaint_and_asks_for_nothing(browser):
    assert browser.complaints == []
    assert [request for request in browser.requests if not request.endswith("/report.html")] == []
    assert browser.run("document.title") == "3 methods on Dataset999_Synthetic"


@pytest.mark.parametrize("width", [1280, 360])
def test_no_picture_is_broken(browser, page, width):
    unfolded(browser, page, width=width)
    pictures = browser.run("[...document.images].map(i => [i.naturalWidth, i.clientWidth, i.alt])")
    assert len(pictures) >= 13 and all(natural > 0 and shown > 0 and alt for natural, shown, alt in pictures)


@pytest.mark.parametrize("width", [1280, 360])
def test_only_tables_and_figures_scroll_sideways(browser, page, width):
    unfolded(browser, page, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    outside = browser.run("""[...document.body.querySelectorAll('*')].filter(
        e => !e.closest('.scroll, .hidden, .skip') && e.getBoundingClientRect().right > innerWidth + 1).length""")
    assert outside == 0
    browser.run("new Promise(done => setTimeout(done, 100))")  # until the page has heard that its parts are open
    stops = browser.run("""[...document.querySelectorAll('.scroll')].filter(
        e => (e.scrollWidth > e.clientWidth + 1) !== (e.tabIndex === 0)).length""")
    assert stops == 0, "what scrolls can be reached by keyboard, what does not scroll is no stop"


def click(browser: Browser, column: int) -> None:
    """As a mouse does it."""
    button = f"document.querySelectorAll('table.sortable thead button')[{column}]"
    browser.run(f"{button}.scrollIntoView({{block: 'center'}})")
    x, y = browser.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({button}.getBoundingClientRect())")
    for kind in ("mousePressed", "mouseReleased"):
        browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


def test_a_click_sorts_upwards_downwards_and_back(browser):
    original = browser.run(ORDER)
    values = browser.run(ORDER.replace("cells[0].textContent", "cells[1].dataset.value"))
    upwards = [name for _, name in sorted(zip(map(float, values), original))]
    assert upwards not in (original, original[::-1]) or len(set(values)) == 3
    click(browser, 1)
    assert browser.run(ORDER) == upwards and browser.run(SORTED)[:3] == ["none", "ascending", "none"]
    assert browser.run(STATUS) == "All of it: sorted by DSC, ascending"
    click(browser, 1)
    assert browser.run(ORDER) == upwards[::-1] and browser.run(SORTED)[1] == "descending"
    click(browser, 1)
    assert browser.run(ORDER) == original and set(browser.run(SORTED)) == {"none"}
    assert browser.run(STATUS) == "All of it: in the order of the comparison"


def test_missing_values_stay_at_the_end_and_text_sorts_as_text(browser):
    missing = browser.run(ORDER)[2]  # its second number is missing
    for _ in range(2):
        click(browser, 2)
        assert browser.run(ORDER)[2] == missing
    click(browser, 0)
    assert browser.run(ORDER) == sorted(browser.run(ORDER)) and browser.run(SORTED)[2] == "none"


def test_intervals_sort_by_their_lower_end_and_empty_cells_stay_at_the_end(browser):
    column = ORDER.replace("cells[0]", "cells[{}]")
    click(browser, 6)
    assert browser.run(column.format(6)) == ["[-0.10, 0.20]", "[-0.02, 0.10]", "[+0.10, +0.20]"]
    for expected in (["better", "worse", ""], ["worse", "better", ""]):
        click(browser, 7)
        assert browser.run(column.format(7)) == expected


def test_fingers_hit_what_they_aim_at(browser, page):
    browser.call("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        unfolded(browser, page, width=360)
        sizes = browser.run("""[...document.querySelectorAll('button, summary')].map(
            e => (b => [b.width, b.height])(e.getBoundingClientRect()))""")
    finally:
        browser.call("Emulation.setTouchEmulationEnabled", enabled=False)
    assert len(sizes) > 10 and all(width >= 44 and height >= 40 for width, height in sizes)


def test_the_name_of_the_row_stays_while_a_table_scrolls(browser, page):
    unfolded(browser, page, width=360)
    left, width = browser.run("""(table => {
        table.parentElement.scrollLeft = 300;
        const box = table.tBodies[0].rows[2].cells[0].getBoundingClientRect();
        return [box.left - table.parentElement.getBoundingClientRect().left, box.width];
    })(document.querySelector('table.sortable'))""")
    assert abs(left) < 1 and width <= 0.45 * 360 + 1, "and a long one leaves room for the numbers"


def test_everything_can_be_done_by_keyboard(browser):
    browser.press("Tab")
    assert browser.run("document.activeElement.className") == "skip"
    assert browser.run("document.activeElement.getBoundingClientRect().left") >= 0, "it is seen when it has the focus"
    browser.press("Enter")
    assert browser.run("document.activeElement.id") == "main"
    for _ in range(40):
        browser.press("Tab")
        if browser.run("document.activeElement.textContent") == "ECE all":
            break
    assert browser.run("document.activeElement.tagName") == "BUTTON"
    assert float(browser.run("getComputedStyle(document.activeElement).outlineWidth").removesuffix("px")) >= 2
    for key, order in (("Enter", "ascending"), (" ", "descending")):
        browser.press(key)
        assert browser.run(SORTED)[4] == order
    assert browser.run("document.activeElement.textContent") == "ECE all", "the focus stays"


def test_without_scripts_all_is_there_but_sorting(browser, page):
    hint = "document.getElementById('sort-hint').getBoundingClientRect().height"
    with_scripts = browser.run("document.querySelector('main').innerText.length")
    assert browser.run(hint) > 0
    unfolded(browser, page, scripts=False)
    try:
        assert browser.run("document.querySelectorAll('button').length") == 0
        assert browser.run("document.querySelector('main').innerText.length") >= with_scripts - 250
        assert browser.run(hint) == 0, "what does not work is not offered"
        assert browser.run("[...document.images].every(i => i.naturalWidth > 0)")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_it_prints(browser, tmp_path):
    browser.pdf(tmp_path / "page.pdf")
    content = (tmp_path / "page.pdf").read_bytes()
    assert content.startswith(b"%PDF") and 2 <= content.count(b"/Type /Page\n") <= 12
