"""The page in a real browser: it loads without complaint, and sorts by mouse and keyboard."""

from __future__ import annotations

import pytest

from tests.browser import chromium  # noqa: F401  (fixture)
from tests.comparison.study import make_study

ORDER = (
    "[...document.querySelectorAll('table.sortable tbody tr')].map(row => row.cells[0].textContent)"
)
SORTED = (
    "[...document.querySelectorAll('table.sortable thead th')].map(header =>"
    " header.getAttribute('aria-sort'))"
)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a page whose data hold HTML and scripts."""
    study = make_study(tmp_path_factory.mktemp("study") / "out", hostile=True)
    study.make_page()
    return (study.out / "report.html").as_uri()


@pytest.fixture
def page(chromium, address):  # noqa: F811
    """The page, all its parts open."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.complaints, page.requests = [], []
    page.on("console", lambda said: page.complaints.append(said.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("requestfailed", lambda request: page.complaints.append(request.url))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    yield page
    context.close()


def test_it_loads_without_complaint_and_asks_for_nothing(page):
    assert page.complaints == []
    assert [request.rsplit("/")[-1] for request in page.requests] == ["report.html"]
    assert page.evaluate("document.title") == "Comparison of 3 methods on Dataset999_Synthetic"


def click(page, column: int) -> None:
    page.locator("table.sortable thead button").nth(column).click()


def test_a_click_sorts_upwards_downwards_and_back_and_missing_values_stay_at_the_end(page):
    original = page.evaluate(ORDER)
    values = page.evaluate(ORDER.replace("cells[0].textContent", "cells[1].dataset.value"))
    upwards = [name for _, name in sorted(zip(map(float, values), original))]
    assert upwards not in (original, original[::-1]) or len(set(values)) == 3
    click(page, 1)
    assert page.evaluate(ORDER) == upwards
    assert page.evaluate(SORTED)[:3] == [
        "none",
        "ascending",
        "none",
    ]
    click(page, 1)
    assert page.evaluate(ORDER) == upwards[::-1]
    assert page.evaluate(SORTED)[1] == "descending"
    click(page, 1)
    assert page.evaluate(ORDER) == original
    assert set(page.evaluate(SORTED)) == {"none"}
    for _ in range(2):
        click(page, 2)
        assert page.evaluate(ORDER)[2] == original[2]  # its second number is missing


def test_everything_can_be_done_by_keyboard(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0, (
        "it is seen when it has the focus"
    )
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "ECE all":
            break
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    assert (
        float(
            page.evaluate("getComputedStyle(document.activeElement).outlineWidth").removesuffix(
                "px"
            )
        )
        >= 2
    )
    for key, order in (("Enter", "ascending"), (" ", "descending")):
        page.keyboard.press(key)
        assert page.evaluate(SORTED)[4] == order
    assert page.evaluate("document.activeElement.textContent") == "ECE all", "the focus stays"


def test_the_link_to_every_test_unfolds_their_table(page):
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = false)")
    table = page.locator("table.sortable").first
    assert not table.is_visible()
    page.get_by_role("link", name="Every test").click()
    assert table.is_visible()
    assert page.evaluate("document.querySelectorAll('details[open]').length") == 1


def test_a_hint_on_a_figure_is_light_on_its_paper_which_is_dark_in_the_dark(chromium, address):  # noqa: F811
    context = chromium.new_context(viewport={"width": 400, "height": 900}, color_scheme="dark")
    page = context.new_page()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    page.locator(".paper.wider").first.wait_for(state="attached")
    hint = "getComputedStyle(document.querySelector('.paper.wider'), '::before').color"
    paper = "getComputedStyle(document.querySelector('.paper.wider')).backgroundColor"
    of_page = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(hint) == "rgb(176, 182, 189)"
    assert page.evaluate(paper) == page.evaluate(of_page) != "rgb(255, 255, 255)"
    context.close()
