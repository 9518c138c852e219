"""Reads the list of a run as a whole."""

from __future__ import annotations

import csv
from pathlib import Path


def read_list(folder: Path, errors: str = "strict") -> list[dict[str, str]]:
    """Rows of review.csv, each with the cells of its scan in the other two files.

    Those of scans.csv keep their column's name; those of structures.csv are ``STRUCTURE column``.
    On the way it is asserted that the three files agree.
    """
    review = _read_rows(folder / "review.csv", errors)
    scans = _read_rows(folder / "scans.csv", errors)
    structures = _read_rows(folder / "structures.csv", errors)
    _assert_same_cases(review, scans, structures)
    whole = {row["case"]: row for row in review}
    for row in scans:
        assert row["score"] == whole[row["case"]]["score"]
        whole[row["case"]] |= row
    for row in structures:
        case = row.pop("case")
        structure = row.pop("structure")
        for column, value in row.items():
            whole[case][f"{structure} {column}"] = value
    return list(whole.values())


def _assert_same_cases(
    review: list[dict[str, str]], scans: list[dict[str, str]], structures: list[dict[str, str]]
) -> None:
    """The ranked cases are those of scans.csv and structures.csv, in the same order."""
    measured = [row["case"] for row in scans]
    ranked = [row["case"] for row in review if row["rank"]]
    assert ranked == measured
    with_structures = dict.fromkeys(row["case"] for row in structures)
    assert list(with_structures) == measured
    if scans:
        shared_columns = set(review[0]) & set(scans[0])
        assert shared_columns == {"case", "score"}


def _read_rows(path: Path, errors: str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", errors=errors, newline="") as file:
        return list(csv.DictReader(file))
