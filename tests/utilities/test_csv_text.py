"""CSV files that no spreadsheet runs, and whose cells come back."""

from __future__ import annotations

import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.utilities.csv_text import from_csv_cell, to_csv_text


def split(text: str, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        *((name, f'"{name}"') for name in ("A - B", "GM+WM", "a@b", "x; y")),
        ('a "b", c', '"a ""b"", c"'),
        ("-1", '"\'-1"'),
        ("\uff1d1", '"\'\uff1d1"'),
        ("a;=cmd|'/C calc'!A0;b", "\"a;'=cmd|'/C calc'!A0;b\""),
        ("a\n+1|-2", "\"a\n'+1|'-2\""),
        ('a;"=1', '"a;\'""=1"'),
        (None, ""),
        (math.nan, ""),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_text_is_in_quotes_and_what_could_run_has_an_apostrophe(value, cell):
    assert to_csv_text(["x"], [[value, 1]]) == f'"x"\n{cell},1\n'


@given(st.lists(st.text("a \"'=+-@\t\r\n;|,", max_size=8), min_size=1, max_size=4))
def test_no_cell_is_a_formula_whatever_a_spreadsheet_splits_lines_at_and_all_come_back(texts):
    texts = [*texts, "last"]
    written = to_csv_text(texts, [texts])
    for separator in ",;\t|":
        for row in split(written, separator):
            formulas = [cell for cell in row if cell.lstrip().startswith(("=", "+", "-", "@"))]
            assert not formulas, separator
    for row in split(written):
        assert [from_csv_cell(cell) for cell in row] == texts
