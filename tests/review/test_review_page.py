"""The page of a review list: which structures a row shows."""

from __future__ import annotations

import re
from dataclasses import replace

from nnunet_nacl.numbers.flags import Flags
from nnunet_nacl.review import review_page as module
from nnunet_nacl.review.review_list import ReviewList
from nnunet_nacl.review.review_page import review_page
from nnunet_nacl.review.reviewed_case import FinishedCase
from tests.review.test_review_list import quality, review
from tests.show.html_check import Page


def page_of(structures: int, quality=None, flags=None, **known) -> str:
    row = review(dice=0.005, structures=structures, **known)
    last = replace(row.structures[-1], members_dice=0.5)  # which is a reason
    row = replace(row, structures=(*row.structures[:-1], last))
    names = [each.name for each in row.structures]
    text = review_page(ReviewList("", {"a": FinishedCase(row)}, names, ["p"], quality, flags))["index.html"]
    assert not Page(text).faults
    return text


def test_a_row_shows_the_structures_with_reasons_and_the_worst_and_the_rest_folds_open():
    text = page_of(9)
    [cell] = re.findall(r"<td[^>]*>(s0 .*?)</td>", text)
    shown, folded = cell.split("<details><summary>5 more structures</summary>")
    assert re.findall(r"s\d", shown) == ["s0", "s1", "s2", "s8"] and "s8 0.81, 2 ml" in shown
    assert re.findall(r"s\d", folded) == ["s3", "s4", "s5", "s6", "s7"]
    assert "<details>" not in (few := page_of(4)) and all(f">s{i}</th>" in few for i in range(4))


def test_a_page_that_would_be_too_large_becomes_several(tmp_path, monkeypatch):
    """Every scan is on one of them, by rank; a shorter list leaves no page of a longer one behind."""
    rows = {f"scan {i}": replace(review(dice=0.9 - i / 1000), case=f"scan {i}") for i in range(5)}
    finished = {case: FinishedCase(row, place="here", picture="A" * 50_000) for case, row in rows.items()}

    def written(cases: int) -> dict[str, str]:
        listed = ReviewList("", dict(list(finished.items())[:cases]), ["s0", "s1"], ["p"], pages="none")
        listed.write(tmp_path, lambda listed, folder: review_page(listed).items())
        return {path.name: path.read_text() for path in sorted(tmp_path.glob("*.html"))}

    assert list(written(5)) == ["index.html"]
    monkeypatch.setattr(module, "LARGEST_PAGE", 200_000)
    monkeypatch.setattr(module, "ROWS_OF_A_PAGE", 2)
    pages = written(5)
    assert list(pages) == ["index.html", "index_2.html", "index_3.html"]
    for (name, text), cases in zip(pages.items(), (("scan 4", "scan 3"), ("scan 2", "scan 1"), ("scan 0",))):
        page = Page(text)
        assert not page.faults and len(text) < 200_000
        assert [each for each in sorted(rows, reverse=True) if f">{each}<" in text] == list(cases)
        assert {link["href"] for link in page.all("a")} - {"#main"} == pages.keys() - {name}
        assert "Review list: , 5 scans" in page.text and "0 of 5 scans are flagged" in page.text
    assert list(written(3)) == ["index.html"]


def test_what_flags_aim_at_stands_first_and_how_far_it_holds_below():
    aim = Flags({"s0": 0.7, "s1": 0.7}, 0.9, None, 0.1, 40, 20, 0.5, 0.95, 0.6)
    text = page_of(2, quality(), aim, bad=0.7)
    assert f"<p>1 of 1 scan is flagged. {aim.aim}" in text and "low score: s0 0.01, s1 0.11 may be bad" in text
    assert "<dt>Flagged for a low score</dt>" in text and "less the Dice below which it is bad" in text
    text = page_of(2, quality(), ranked := replace(aim, why_not="too few"), bad=0.7)
    assert ranked.aim in text and "<dt>Flagged for a low score</dt>" not in text and "low score" not in text
    assert "What flags aim at" not in text and "no threshold is validated" in text
