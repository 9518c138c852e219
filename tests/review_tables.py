"""Reads the list of a run as a whole."""

from __future__ import annotations

import csv
from pathlib import Path


def read_list(folder: Path, errors: str = "strict") -> list[dict[str, str]]:
    """Rows of review.csv, with those of scans.csv and, as ``STRUCTURE column``, those of
    structures.csv."""
    review, scans, structures = (
        _rows(folder / f"{name}.csv", errors) for name in ("review", "scans", "structures")
    )
    assert [row["case"] for row in review if row["rank"]] == [row["case"] for row in scans]
    assert list(dict.fromkeys(row["case"] for row in structures)) == [row["case"] for row in scans]
    assert not scans or set(review[0]) & set(scans[0]) == {"case", "score"}
    whole = {row["case"]: row for row in review}
    for row in scans:
        assert row["score"] == whole[row["case"]]["score"]
        whole[row["case"]] |= row
    for row in structures:
        name = row.pop("structure")
        whole[row.pop("case")] |= {f"{name} {column}": value for column, value in row.items()}
    return list(whole.values())


def _rows(path: Path, errors: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", errors=errors, newline="") as file:
        return list(csv.DictReader(file))
