"""Names and places of the files of a review list; removes those of an earlier run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nnunet_nacl.cases.findings import FINDINGS
from nnunet_nacl.files import is_ours

DOCUMENT = "prediction.json"
PAGE = "index.html"
PAGES = "review"
"""Folder of the scans' pages, and of what is made for an editor."""

REVIEW = "review.csv"
STRUCTURES = "structures.csv"
SCANS = "scans.csv"
OUTCOME = "outcome.json"
OUTCOME_PAGE = "outcome.html"


def page_of(case: str) -> str:
    """Place of the page of a scan."""
    return f"{PAGES}/{case}.html"


def places_of_list(cases: Iterable[str]) -> list[str]:
    """Files of a run beside segmentations: tables, document, page, one of each case."""
    return [DOCUMENT, REVIEW, STRUCTURES, SCANS, FINDINGS, PAGE, *map(page_of, cases)]


def remove_list(output: Path) -> None:
    """Remove the list of an earlier run and what came of it, before its segmentations change.

    Files of others stay.
    """
    cases = [path.stem for path in (output / PAGES).glob("*.html")]
    for name in (OUTCOME, OUTCOME_PAGE, *places_of_list(cases)):
        if is_ours(output / name):
            (output / name).unlink(missing_ok=True)
