"""Reads the list of a run as a whole."""

from __future__ import annotations

import csv
from pathlib import Path


def read_list(folder: Path, errors: str = "strict") -> list[dict[str, str]]:
    """Rows of review.csv with the other columns of the same rows from review_details.csv."""
    tables = []
    for name in ("review.csv", "review_details.csv"):
        with open(folder / name, encoding="utf-8", errors=errors, newline="") as file:
            tables.append(list(csv.DictReader(file)))
    review, details = tables
    key = "rank", "case"
    assert [[row[name] for name in key] for row in review] == [[row[name] for name in key] for row in details]
    assert not review or set(review[0]) & set(details[0]) == set(key)
    return [one | other for one, other in zip(review, details)]
