"""Tables of calibration: means, differences and expectations of values that are made here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.pages import RESULTS

sys.path.insert(0, str(RESULTS))
try:
    tables_calibration, table_kinds = map(importlib.import_module, ("tables_calibration", "table_kinds"))
finally:
    sys.path.remove(str(RESULTS))

BEFORE, AFTER = [0.30, 0.50], [0.20, 0.30]
"""ECE of two cases as trained and under the map."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with two cases in no fold."""
    model = tmp_path / "Dataset030_DRIVE" / "DiceCE"
    scores = {f"{score} {mask}" for score in ("ECE", "NLL", "Brier") for mask in ("predicted", "near", "all")}
    rows = [
        {"network": network, "case": case, "form": form, "Dice": 0.8, "expected Dice off": ece, "bias": 0}
        | dict.fromkeys(scores, ece)
        for network in ("fold_0", "average", "ensemble")
        for form, values in (("as trained", BEFORE), ("temperature", BEFORE), ("CDC", AFTER), ("map", AFTER))
        for case, ece in zip("ab", values)
    ]
    parts = [
        {"network": network, "case": case, "structure": "vessel", "Dice": dice, "Dice low": 0.7, "Dice high": 0.9}
        | {"true volume": 10, "volume low": 8, "volume high": 12}
        for network in ("fold_0", "average")
        for case, dice in zip("ab", (0.8, 0.6))
    ]
    for place, networks in (("folds", ["fold_0"]), ("outer", ["average", "ensemble"])):
        (model / place).mkdir(parents=True)
        for name, table in (("forms", rows), ("structures", parts)):
            own = [row for row in table if row["network"] in networks]
            pd.DataFrame(own).to_csv(model / place / f"{name}.csv", index=False)
    return model


def made(kind: str, folder: Path) -> dict[str, dict[str, str]]:
    """Cells of a table by row and column."""
    header, *rows = table_kinds.rows_of_table(tables_calibration.TABLES[kind]([folder]))
    return {row[0]: dict(zip(header, row)) for row in rows}


def test_a_change_is_the_mean_over_cases_of_map_less_as_trained(folder: Path) -> None:
    cell = made("changes", folder)["DRIVE, average, outer (2)"]["ECE predicted"]
    assert cell == "-0.150 [-0.200, -0.100]"  # mean of -0.1 and -0.2; of two patients the ends are these


def test_the_average_of_probabilities_stands_beside_the_forms_of_that_of_logits(folder: Path) -> None:
    rows = made("forms", folder)
    assert rows["ensemble"]["ECE predicted"] == "0.400"  # as trained, below the last section
    assert made("peers", folder)["DRIVE, average, outer, ECE predicted"]["ensemble"] == "-0.150 [-0.200, -0.100]"
    assert made("peers", folder)["DRIVE, folds, ECE predicted"]["ensemble"] == ""


def test_what_came_beside_what_was_expected(folder: Path) -> None:
    expected = [("ECE predicted, with the map", 0.2, 0.3), ("NLL all, change by the map in %", -10, 0)]
    expected += [("intervals of Dice that hold", 0.4, 0.6), ("bad scans", 0, 0.1)]
    pd.DataFrame(expected, columns=["what", "low", "high"]).to_csv(folder / "expected.csv", index=False)
    came = {what: row["came"] for what, row in made("expected", folder).items()}
    assert came == {
        "ECE predicted, with the map": "0.25",
        "NLL all, change by the map in %": "**-37.5**",  # .25 of .40
        "intervals of Dice that hold": "0.5",  # .6 lies below .7
        "bad scans": "**0.5**",  # .6 is below the limit of DRIVE
    }
