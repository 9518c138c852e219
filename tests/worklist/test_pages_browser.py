"""The pages of a review in a real browser: slices, layers, keys, marks and their export, on a
screen and on a phone."""

from __future__ import annotations

import csv
import io
import json
from urllib.parse import quote, unquote

import pandas as pd
import pytest

from nnunet_nacl.utilities.csv_text import to_csv_text
from nnunet_nacl.utilities.rendering import render_page
from nnunet_nacl.worklist.list_files import page_of

SLICE = "document.getElementById('slice').textContent"
REFUSED = (
    "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('',"
    " 'SecurityError') }})"
)
APART = """Object.defineProperty(window, 'localStorage', {value: {
    getItem: (name) => sessionStorage.getItem(name + location.pathname),
    setItem: (name, text) => sessionStorage.setItem(name + location.pathname, text)}})"""


@pytest.fixture
def browse(chromium, reviewed_scans):
    """Function that opens the list, or the page of a case, in a browser of its own; it must not
    complain."""
    contexts = []
    complaints = []
    folder = reviewed_scans[0] / "out"

    def browse(case=None, width=1280, script="", **settings):
        contexts.append(chromium.new_context(viewport={"width": width, "height": 900}, **settings))
        contexts[-1].add_init_script(script)
        page = contexts[-1].new_page()
        page.on("console", lambda said: complaints.append(said.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(request.url))
        page.goto((folder / (page_of(case) if case else "index.html")).as_uri())
        return page

    yield browse
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def listed(reviewed_scans):
    return reviewed_scans[1]


def wait_for_slice(page, title: str) -> None:
    """``wait_for_function`` may need ``eval`` in the page, which its policy forbids."""
    for _ in range(100):
        if page.evaluate(SLICE) == title:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not shown within five seconds: {title}")


def wait_for_page(page, title: str) -> None:
    from playwright.sync_api import expect  # which is there where there is a browser

    expect(page).to_have_title(title, timeout=30_000)  # milliseconds; machines of tests are busy


def exported(page) -> list[dict[str, str]]:
    """The rows of what the page exports."""
    with page.expect_download() as download:
        page.get_by_role("button", name="Export marks").click()
    assert download.value.suggested_filename.startswith("marks_")
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_keys_wheel_and_slider_move_through_slices_and_scans(browse, listed):
    page = browse("b")
    place = page.evaluate(SLICE)
    start = json.loads(page.locator("#slices").text_content())["first"]
    assert place == f"axial slice {start} of 6"
    assert page.locator(".ring").is_visible()
    numbers = [
        number for number, *_ in json.loads(page.locator("#slices").text_content())["slices"]
    ]
    step = 1 if start < numbers[-1] else -1
    page.keyboard.press("ArrowUp" if step > 0 else "ArrowDown")
    assert page.evaluate(SLICE) == f"axial slice {start + step} of 6"
    assert not page.locator(".ring").is_visible(), "the place is on another slice"
    page.keyboard.press("ArrowDown" if step > 0 else "ArrowUp")
    assert page.evaluate(SLICE) == place
    page.locator(".layers").hover()
    page.mouse.wheel(0, -100 * step)
    wait_for_slice(page, f"axial slice {start + step} of 6")
    before = page.locator("img.grey").get_attribute("src")
    page.locator("#slider").fill("0")
    assert page.evaluate(SLICE) == f"axial slice {numbers[0]} of 6"
    assert page.locator("img.grey").get_attribute("src") != before
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(SLICE) == f"axial slice {numbers[1]} of 6" and page.url.endswith(
        "b.html"
    ), "the slider's key"

    page = browse(listed.scans.index[0])
    for key, rank in (("n", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("p", 0)):
        page.keyboard.press(key)
        wait_for_page(page, listed.scans.index[rank])
    page.locator("textarea").focus()
    page.keyboard.type("no, not p")
    assert page.title() == listed.scans.index[0], "letters in a note are letters"


@pytest.mark.parametrize("script", ["", REFUSED, APART], ids=["shared", "refused", "apart"])
def test_marks_stay_and_are_exported_from_every_page(browse, listed, script):
    """Wherever the browser keeps them: for all pages on disk, for none, or for each by itself."""
    first, second = listed.scans.index[:2]
    page = browse(first, script=script)
    addresses = []
    page.on("framenavigated", lambda frame: addresses.append(unquote(frame.url)))
    hints = page.locator("[data-storage]")
    assert page.locator("[data-storage=refused]").is_visible() == (script == REFUSED)
    assert page.locator("[data-storage=unknown]").is_visible() == (script != REFUSED)
    page.locator("select[name=mark]").select_option("correct")
    page.locator("textarea").fill('apex: "leaks",\nbase ü')
    [row] = exported(page)
    known = {
        "run": listed.run.name,
        "case": first,
        "mark": "correct",
        "note": 'apex: "leaks",\nbase ü',
    }
    assert list(row) == ["run", "case", "mark", "note", "time"]
    assert row.items() >= known.items()
    assert row["time"].endswith("Z")
    if script != REFUSED:
        page.reload()
        assert page.locator("select[name=mark]").input_value() == "correct"
    page.keyboard.press("n")
    wait_for_page(page, second)
    page.wait_for_url("**marks=**" if script else "**token=**")  # once it is known
    assert page.locator("select[name=mark]").input_value() == ""
    assert hints.filter(visible=True).count() == bool(script), "before a note is typed"
    page.locator("select[name=mark]").select_option("ok")
    page.get_by_role("link", name="list").click()
    page.wait_for_url("**/index.html#**")
    rows = {row["case"]: row["mark"] for row in exported(page)}
    assert rows == {first: "correct", second: "ok"}
    marks = page.evaluate(
        "[...document.querySelectorAll('tbody select')].map((select) => select.value)"
    )
    assert marks[:3] == ["correct", "ok", ""]
    assert 'leaks",' in page.locator("tbody tr").first.inner_text()
    assert any("leaks" in address for address in addresses) == bool(script)
    page.go_back()  # to where a reader came from, and no further
    wait_for_page(page, second)
    assert page.locator("select[name=mark]").input_value() == ("" if script == REFUSED else "ok")


def test_a_link_brings_marks_of_its_run_and_a_bad_one_costs_only_itself(browse, listed):
    page = browse()
    good = {"mark": "ok", "note": "", "time": "2026-01-01T00:00:00.000Z"}

    def follow(run: str, marks: object) -> list[dict[str, str]]:
        text = quote(json.dumps({"run": run, "marks": marks}), safe="")
        page.goto(f"{page.url.split('#')[0]}#marks={text}")
        page.reload()
        return exported(page)

    assert (
        follow("another", {"b": good})
        == follow(listed.run.name, None)
        == follow(listed.run.name, "text")
        == []
    )
    bad = {
        "null": None,
        "text": "ok",
        "no mark": good | {"mark": "fine"},
        "no note": good | {"note": 7},
    }
    bad |= {
        "no date": good | {"time": "2026"},
        "to come": good | {"time": "2999-01-01T00:00:00.000Z"},
    }
    notes = ["=1+1", "'=1", "\t-1", '"@x', "a;=b", "a\n+1|-2", "\uff1d1", "+ & %"]
    rows = [[listed.run.name, case, "ok", case, good["time"]] for case in notes]
    expected = csv.DictReader(
        io.StringIO(to_csv_text(["run", "case", "mark", "note", "time"], rows), newline="")
    )
    assert follow(listed.run.name, {**bad, **{case: good | {"note": case} for case in notes}}) == [
        *expected
    ]
    page.evaluate(f"localStorage.setItem('nnunet_nacl {listed.run.name}', '[')")
    page.goto(f"{page.url.split('#')[0]}#%")
    page.reload()
    assert exported(page) == [] and not page.locator("[data-storage=refused]").is_visible()


def test_the_list_shows_the_flagged_and_the_unseen_and_how_many_are_left(browse, listed):
    page = browse()
    flagged = listed.cases("is_flagged")
    visible = """[...document.querySelectorAll('tbody tr')].filter((row) => \
row.checkVisibility()).map(
        (row) => row.dataset.case)"""
    assert 0 < len(flagged) < len(listed.scans), "else nothing is tested"
    assert page.evaluate(visible) == [*listed.scans.index]
    page.get_by_label("flagged").check()
    assert page.evaluate(visible) == flagged
    left = "Not seen yet: {} flagged, {} of {} in all.".format
    n = len(listed.scans)
    assert page.locator("#left").inner_text() == left(len(flagged), n, n)
    page.get_by_label("not seen yet").check()
    page.locator("tbody tr:not([hidden]) select").first.select_option("reject")
    assert page.evaluate(visible) == flagged[1:]
    assert page.locator("#left").inner_text() == left(len(flagged) - 1, n - 1, n)
    page.get_by_label("flagged").uncheck()
    page.get_by_label("not seen yet").uncheck()
    headings = page.locator("thead button").all_inner_texts()
    assert headings == ["scan", "predicted Dice, volume", "why look"], "pictures have no order"
    page.locator("thead button").first.click()
    assert page.evaluate(visible) == sorted(page.evaluate(visible))
    for _ in range(2):
        page.locator("thead button").first.click()
    assert page.locator("#sort-status").text_content() == "Scans: in the order of the list"
    assert len(page.evaluate(visible)) == len(listed.scans)


def test_the_first_screen_says_what_to_do_and_shows_where(browse, listed):
    page = browse()
    assert "Start with the flagged scans" in page.locator("header").inner_text()
    assert page.locator("tbody tr").first.bounding_box()["y"] < 800
    page = browse("b")
    for part in ("#slider", "select[name=mark]", "textarea"):
        box = page.locator(part).bounding_box()
        assert box["y"] + box["height"] < 800, part


def test_without_scripts_values_and_the_least_certain_place_are_there(browse, listed):
    page = browse("b", java_script_enabled=False)
    assert page.locator(".planes img").count() == 3
    assert page.locator(".structure").count() == 2
    assert not page.locator("#viewer").is_visible() and not page.locator("#mark").is_visible()


def test_on_a_phone_each_row_is_a_card_that_fits(browse):
    """Picture beside reasons, values below, and nothing is wider than the window."""
    page = browse(width=400)
    boxes = """[...document.querySelectorAll('body *:not(.skip)')].map((one) => \
one.getBoundingClientRect()).filter(
        (box) => box.width > 1 && box.height > 1 && (box.left < -1 || box.right > 401)).length"""
    assert page.evaluate(boxes) == 0
    picture, why, dice = (
        page.locator(f'tr[data-case="b"] {part}').bounding_box()
        for part in (".picture", ".why", ".dice")
    )
    assert picture["x"] + picture["width"] <= why["x"] + 1
    assert abs(picture["y"] - why["y"]) < 1
    assert dice["y"] >= picture["y"] + picture["height"] - 1
    assert dice["width"] > 300


def test_the_page_of_an_outcome_says_on_a_phone_that_a_table_is_wider(chromium, tmp_path):
    table = pd.DataFrame({f"column {i}": ["a value"] for i in range(12)})
    complaints = []
    (tmp_path / "outcome.html").write_text(
        render_page(
            "outcome.html",
            made="",
            sentences=[],
            tables=[("What", table)],
            list_page="index.html",
            has_predicted=True,
        )
    )
    page = chromium.new_page(viewport={"width": 400, "height": 900})
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "outcome.html").as_uri())
    assert page.get_attribute(".scroll", "class") == "scroll wider"
    assert not complaints
    page.close()
