"""The page: complete, valid, accessible, self-contained, and safe whatever the data are called."""

from __future__ import annotations

import re
import zipfile

from tests.comparison.html_check import Page
from tests.comparison.study import HOSTILE_LABEL, HOSTILE_NOTE, SCRIPT, make_study


def check(page: Page) -> None:
    """What holds for every page."""
    assert page.faults == []
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(attributes.get(name, "").split()) <= set(ids)
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:])), (
        "no level of headings is left out"
    )
    assert all(text.strip() for _, text in page.headings)
    images = page.all("img")
    assert images
    assert all(image["alt"].strip() and image["src"].startswith("data:image/") for image in images)
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(header["scope"] in ("col", "row") for header in page.all("th"))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == len(page.all("title")) == 1
    for _, attributes in page.elements:
        assert not {"style", "onclick", "onerror", "onload"} & set(attributes)


def test_the_page_is_valid_accessible_and_needs_nothing_else_whatever_the_data_are_called(tmp_path):
    text = make_study(tmp_path / "out", hostile=True).make_page()
    read = Page(text)
    check(read)
    for words in (SCRIPT, HOSTILE_LABEL, HOSTILE_NOTE):
        assert words in read.text
        assert words not in text
    assert len(read.all("script")) == 1
    assert not read.all("i")
    assert not read.all("link")
    assert not read.all("iframe")
    assert all("src" not in script for script in read.all("script"))
    text = re.sub(r"data:image/[^\"]*", "", text)
    assert not re.search(r"https?:|url\((?!#)|@import|//[a-z]+\.", text)
    [policy] = [
        meta["content"]
        for meta in read.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    assert "default-src 'none'" in policy
    assert "img-src data:" in policy
    assert "script-src 'sha256-" in policy


def test_the_page_leads_with_what_the_tests_show(tmp_path):
    study = make_study(tmp_path / "out")
    page = Page(study.make_page())
    levels_and_titles = page.headings
    assert levels_and_titles[1:4] == [(2, "What got better, what worse"), (3, "CE"), (3, "NACL")]
    text = " ".join(page.text.split())
    [headline] = study.headlines
    for method in headline.methods:
        for difference in method.leading:
            means = f"{difference.mean_reference} → {difference.mean}: {difference.difference}"
            assert f"{difference.verdict_text} {means} {difference.remark}".strip() in text
        for counts in method.counts:
            verdicts = f"{counts.by_verdict['better']} {counts.by_verdict['worse']}"
            row = f"{counts.kind}:\xa0{counts.n_tests} {verdicts} {counts.no_difference_text}"
            assert " ".join(row.split()) in text
        assert method.worse in text
    for remark in headline.remarks:
        assert remark in text
    assert {"href": "#table-1"} in page.all("a")


def test_no_name_turns_the_page_the_other_way(tmp_path):
    study = make_study(tmp_path / "out")
    study.data["trainers"][1]["label"] = "CE \u202eevil\u2066 \x1b[1m\x9b\u200b"
    study.data["notes"] = ["half a pair: \ud800"]
    text = study.make_page()
    assert all(character.isprintable() or character in "\n\t" for character in text)
    assert r"CE \u202eevil\u2066 \x1b[1m\x9b\u200b" in Page(text).text
    assert "half a pair: \\ud800" in text


def test_the_wheel_holds_the_templates(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("page.html", "page.css", "page.js"):
        assert f"nnunet_nacl/utilities/templates/{name}" in names
