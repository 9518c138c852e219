"""Tables: marks, and their text for a terminal and a spreadsheet."""

from __future__ import annotations

import csv
import io
import math

import pandas as pd
import pytest

from nnunet_nacl.comparison.table import Table
from nnunet_nacl.utilities.tables import frames, ten_worst, text_of


def table(rows, **more) -> Table:
    return Table("t", "Title", "Caption.", *frames(rows), **more)


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ([3, 1, 2], "higher", "b-s"),
        ([1, 2, 2], "lower", "bss"),
        ([1, 2], "lower", "b-"),
        ([0.12341, 0.12344, 0.2], "lower", "bb-"),
        ([math.nan, 2, 1], "lower", "-sb"),
    ],
)
def test_best_and_second_with_all_that_look_equal(values, better, expected):
    rows = [{"method": str(i), "x": float(value)} for i, value in enumerate(values)]
    marks = table(rows, better={"x": better}).marks["x"]
    assert "".join({"best": "b", "second": "s", "": "-"}[mark] for mark in marks) == expected


def test_numbers_are_shown_short_and_written_in_full():
    rows = [
        {"method": "a\nb", "HD95 (mm)": 1 / 3, "missed": (2, "2 of 8"), "n": 3},
        {"method": "=1+1", "HD95 (mm)": math.nan, "missed": (0, "0 of 8"), "n": 4},
    ]
    made = table(rows)
    assert made.to_text().splitlines()[2].split() == ["a\\nb", "0.33", "2", "of", "8", "3"]
    assert made.to_csv(["+1"]).splitlines()[-1] == '"\'=1+1",,0,4,"\'+1"'
    [first, second] = csv.DictReader(io.StringIO(made.to_csv()))
    assert float(first["HD95 (mm)"]) == 1 / 3
    assert (first["missed"], second["HD95 (mm)"]) == (
        "2",
        "",
    )
    assert made.rows()[0][1:3] == [("0.33", 1 / 3, ""), ("2 of 8", 2, "")]
    assert made.rows()[1][1] == ("-", None, "")
    wider = table(rows, csv=pd.DataFrame({"all": [1.5]}))
    assert wider.to_csv() == '"all"\n1.5\n'


def test_a_name_that_would_fill_the_terminal_is_shortened_in_its_middle():
    name = f"begin{'x' * 500}end"
    lines = text_of([{"case": name, name: 0.5}, {"case": "short", name: 0.25}]).splitlines()
    assert max(map(len, lines)) < 140
    assert all("begin" in line and "end" in line for line in lines[:2])


def test_the_ten_worst_by_their_worst_row_in_their_order():
    rows = [{"structure": f"s{i}", "Dice": dice} for dice in (0.9, math.nan) for i in range(12)]
    rows[3]["Dice"], rows[5]["Dice"] = math.nan, math.nan  # nothing is known of these two
    shown, [more] = ten_worst(rows, "structure", lambda row: row["Dice"])
    assert [row["structure"] for row in shown[:10]] == [
        f"s{i}" for i in range(12) if i not in (3, 5)
    ]
    assert len(shown) == 20
    assert more == "the 10 worst, and 2 more in the file"
    assert ten_worst([], "structure", lambda row: 0) == ([], [])
