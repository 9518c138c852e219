"""Tables: marks, captions, and their text in every format."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl.calibration.effect import changes
from nnunet_nacl.metrics.overlap import Overlap
from nnunet_nacl.show.result_tables import make_tables
from nnunet_nacl.show.text_table import (
    Cell,
    Table,
    csv_text,
    effect_table,
    escape_latex,
    escape_markdown,
    latex_text,
    mark,
    markdown_text,
    terminal_text,
)
from tests.comparison.synthetic import make_comparison, make_dataset, make_structure, with_structure

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}


def marks(values, better="lower", decimals=3):
    cells = mark(values, [f"{value:.{decimals}f}" for value in values], better)
    return "".join("b" if cell.best else "s" if cell.second else "-" for cell in cells)


@pytest.mark.parametrize(
    ("values", "better", "expected"),
    [
        ([3, 1, 2], "lower", "-bs"),
        ([3, 1, 2], "higher", "b-s"),
        ([1, 1, 2], "lower", "bb-"),
        ([1, 2, 2], "lower", "bss"),
        ([1, 1, 2, 3], "lower", "bb--"),
        ([1, 1, 1], "lower", "---"),
        ([1, 2], "lower", "b-"),
        ([0.12341, 0.12344, 0.2], "lower", "bb-"),
        ([math.nan, 2, 1], "lower", "-sb"),
        ([math.nan, math.nan], "lower", "--"),
    ],
)
def test_best_and_second_with_all_that_look_equal(values, better, expected):
    assert marks(values, better) == expected


@pytest.fixture(scope="module")
def tables():
    dataset = make_dataset(THREE, cases=8)
    results = dataset.results["nnUNetTrainerNACL"]
    results[3] = with_structure(results[3], "2", Overlap(0, 0, 5, 195), math.nan)
    return {table.id: table for table in make_tables(make_comparison(THREE, datasets=[dataset]))}


def test_one_data_set_has_four_tables(tables):
    assert list(tables) == ["discrimination", "calibration", "calibration_masks", "statistics"]
    assert tables["discrimination"].columns == [
        "method",
        "DSC Anterior",
        "DSC Posterior",
        "DSC mean",
        "HD95 Anterior (mm)",
        "HD95 Posterior (mm)",
        "HD95 mean (mm)",
    ]
    assert [row[0] for row in tables["calibration"].rows] == ["stock", "CE", "NACL"]
    assert tables["calibration_masks"].columns == ["mask", "method", "ECE", "CECE", "NLL", "Brier"]
    assert len(tables["calibration_masks"].rows) == 21 and len(tables["statistics"].rows) == 56
    for table in tables.values():
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_of_many_structures_the_worst_have_a_row_each_and_the_csv_has_all():
    names = {str(i): f"organ {i}" for i in range(1, 15)}
    dataset = make_dataset(THREE, cases=8)
    for results in dataset.results.values():
        for i, case in enumerate(results):
            values = {key: make_structure(Overlap(100 - 5 * int(key), 5 * int(key), 0, 95), 1.0, 1.0) for key in names}
            if i == 0:  # of a structure that is not shown, and of one that is
                values |= {key: make_structure(Overlap(0, 0, 0, 200), math.nan, 1.0) for key in ("2", "9")}
            results[i] = replace(case, metrics=values)
    made = make_comparison(THREE, datasets=[replace(dataset, structures=names)])
    tables = {table.id: table for table in make_tables(made)}
    table = tables["discrimination"]
    assert table.columns == ["structure", "method", "DSC", "HD95 (mm)"]
    shown = [f"organ {i}" for i in range(5, 15)]
    assert [row[0] for row in table.rows] == [name for name in [*shown, "mean"] for _ in THREE]
    assert table.rows[-1][2].value == made.mean(made.datasets[0], "Dice", "nnUNetTrainerNACL")
    assert "ten structures with the lowest Dice" in terminal_text(table) and "all are in the CSV" in table.caption
    assert "DSC organ 9, CE: 1 (case_00)" in table.caption and "organ 2" not in table.caption
    full = list(csv.DictReader(io.StringIO(csv_text(table))))
    assert [row["method"] for row in full] == ["stock", "CE", "NACL"] and len(full[0]) == 1 + 2 * 15
    assert float(full[1]["DSC organ 1"]) == made.mean(made.datasets[0], "Dice:1", "nnUNetTrainerCE")
    assert not any(str(row[0]).startswith("DSC organ 2") for row in tables["statistics"].rows)
    assert '"Dice:2"' in csv_text(tables["statistics"]) and "all are in the CSV" in tables["statistics"].caption


def test_captions_say_how_many_and_what_is_left_out(tables):
    caption = tables["discrimination"].caption
    assert "8 cases" in caption and "folds 0, 1" in caption
    assert "HD95 Posterior (mm), NACL: 1 (case_03)" in caption and "DSC Posterior" not in caption
    assert "DSC" not in tables["calibration"].caption and "15 bins" in tables["calibration"].caption
    assert "Undefined" not in tables["calibration"].caption
    assert "foreground grown by 2 mm" in tables["calibration_masks"].caption
    assert "discrimination 12, calibration 4, calibration_masks 40" in tables["statistics"].caption


def test_captions_say_where_no_test_can_pass():
    # 12 tests of 8 cases: 12 * 2 / 2**8 = 0.09 and 40 times that; 4 tests: 0.03
    made = {table.id: table.caption for table in make_tables(make_comparison(THREE, cases=8))}
    assert "however clear the difference: discrimination, calibration_masks. " in made["statistics"]
    made = {table.id: table.caption for table in make_tables(make_comparison(THREE, cases=12))}
    assert "however clear" not in made["statistics"]  # 40 * 2 / 2**12 = 0.02
    assert make_comparison(cases=5).powerless(make_dataset(THREE)) == []  # no test was made at all


def test_the_table_of_masks_holds_the_means(tables):
    comparison = make_comparison(THREE, cases=8)
    dataset = comparison.datasets[0]
    rows = {(row[0], row[1]): row for row in tables["calibration_masks"].rows}
    for i, metric in enumerate(("ECE", "CECE_mean", "NLL", "Brier"), 2):
        cell = rows["union", "CE"][i]
        assert cell.value == comparison.mean(dataset, f"{metric}:union", "nnUNetTrainerCE")
        assert cell.text == f"{cell.value:.4f}"


def test_several_data_sets_have_an_overview():
    datasets = [make_dataset(THREE, cases=6, name=f"Dataset00{i}_Made", seed=i) for i in (1, 2)]
    tables = {table.id: table for table in make_tables(make_comparison(THREE, datasets=datasets))}
    assert len(tables) == 1 + 2 * 4 and "calibration_masks_Dataset002_Made" in tables
    overview = tables["overview"]
    assert overview.columns[:3] == ["method", "DSC Dataset001_Made", "DSC Dataset002_Made"]
    assert overview.rows[1][2].value == tables["discrimination_Dataset002_Made"].rows[1][3].value


def test_csv_holds_full_precision(tables):
    rows = list(csv.reader(io.StringIO(csv_text(tables["calibration"]))))
    assert rows[0] == tables["calibration"].columns
    assert float(rows[2][1]) == tables["calibration"].rows[1][1].value
    full = list(csv.DictReader(io.StringIO(csv_text(tables["statistics"]))))
    assert len(full) == 56 and float(full[0]["low"]) <= float(full[0]["difference"]) <= float(full[0]["high"])
    undefined = Table("t", "t", "", ["method", "x"], [["a", Cell("-", math.nan)], ["b", Cell("0.1", 0.1)]])
    assert csv_text(undefined) == '"method","x"\n"a",\n"b",0.1\n'


HARD = Table(
    "hard",
    "A_b",
    "50 % of A & B",
    ["method", "x|y"],
    [
        ["A_b {x} & 5 % $1 #2 ~^\\ <b>|*", Cell("-0.10", -0.1, best=True)],
        ["plain", Cell("0.20", 0.2, second=True)],
    ],
)


def test_latex_is_escaped_and_uses_booktabs():
    text = latex_text(HARD, ["5 % left out"])
    assert r"\toprule" in text and r"\bottomrule" in text and r"\textbf{$-$0.10}" in text
    assert r"\underline{0.20}" in text and r"50 \% of A \& B 5 \% left out" in text
    assert r"method & x\textbar{}y \\" in text
    assert r"A\_b \{x\} \& 5 \% \$1 \#2 \textasciitilde{}\textasciicircum{}\textbackslash{} \textless{}b" in text
    for line in text.splitlines():
        if line.endswith(r" \\"):
            assert len(re.findall(r"(?<!\\)&", line)) == 1
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_markdown_is_escaped():
    text = markdown_text(HARD, ["5 cases_left"])
    row = next(line for line in text.splitlines() if line.startswith("| A"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3 and "**-0.10**" in row and r"\<b\>" in row
    assert "<u>0.20</u>" in text and r"**Note:** 5 cases\_left" in text and r"x\|y" in text


@given(st.text(max_size=30))
def test_no_text_breaks_a_cell(text):
    assert not re.search(r"[|<>*_`]", re.sub(r"\\.", "", escape_markdown(text)))
    plain = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]|\{\[\}|\{\*\}", "", escape_latex(text))
    assert not re.search(r"[\\&%$#_{}~^]", plain) and "\n" not in plain


def test_terminal_text_is_aligned_and_grouped(tables):
    lines = terminal_text(tables["calibration"]).splitlines()
    assert lines[0].startswith("Calibration") and " *" in lines[2] + lines[3] + lines[4]
    assert terminal_text(tables["calibration_masks"]).count("\n\n") == 6
    assert "worse" in terminal_text(HARD) or "plain" in terminal_text(HARD)


def test_a_name_does_not_become_a_formula():
    table = Table("t", "t", "", ["method", "x"], [["=cmd|' /C calc'!A0", Cell("-0.1", -0.1)]])
    assert csv_text(table, ["+1"]).splitlines() == ['"method","x","note"', "\"'=cmd|' /C calc'!A0\",-0.1,\"'+1\""]


def test_a_mask_that_is_empty_everywhere_has_no_numbers():
    before = {"NLL all": [0.5, 0.7, 0.9], "ECE predicted": [math.nan] * 3, "Dice 1": [0.8, 0.8, 0.8]}
    after = {"NLL all": [0.4, 0.5, 0.6], "ECE predicted": [math.nan] * 3, "Dice 1": [0.8, 0.8, 0.8]}
    lines = effect_table(changes(before, after), {"1": "li\nver"}).splitlines()  # a name stays in its cell
    assert lines[0].split() == ["before", "after", "change", "95", "%", "interval", "cases"]
    assert lines[1].split()[:5] == ["NLL", "all", "0.7000", "0.5000", "-0.2000"] and lines[1].endswith(" 3")
    assert lines[2].split() == ["ECE", "predicted", "-", "-", "-", "-", "0"]
    assert lines[3].split()[:5] == ["Dice", "li\\nver", "0.8000", "0.8000", "0.0000"]
