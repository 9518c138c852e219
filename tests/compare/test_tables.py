"""The tables of a comparison: their cells and captions."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import pytest

from nnunet_nacl.compare.comparison import Comparison
from nnunet_nacl.compare.learned_dice import presence_by_entry
from nnunet_nacl.compare.tables import comparison_tables
from nnunet_nacl.numbers.overlap import Overlap
from nnunet_nacl.show.tables import Table
from tests.compare.synthetic import make_comparison, make_dataset, make_quality, make_structure, with_structure

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}


def tables_of(comparison: Comparison, quality=None) -> dict[str, Table]:
    """By id; ``quality`` by name of an entry, of the one data set."""
    every = {data.name: quality or {} for data in comparison.datasets}
    presence = {data.name: presence_by_entry(comparison.entries, data) for data in comparison.datasets}
    bad = {data.name: dict.fromkeys(data.structures, 0.8) for data in comparison.datasets}
    return {table.id: table for table in comparison_tables(comparison, every, presence, bad)}


@pytest.fixture(scope="module")
def tables():
    dataset = make_dataset(THREE, cases=8)
    results = dataset.results["nnUNetTrainerNACL"]
    results[3] = with_structure(results[3], "2", Overlap(0, 0, 5, 195), math.nan)
    return tables_of(make_comparison(THREE, datasets=[dataset]))


def test_of_many_structures_the_worst_are_shown_and_the_csv_has_all():
    names = {str(i): f"organ {i}" for i in range(1, 15)}
    dataset = make_dataset(THREE, cases=8)
    for results in dataset.results.values():
        for i, case in enumerate(results):
            values = {key: make_structure(Overlap(100 - 5 * int(key), 5 * int(key), 0, 95), 1.0, 1.0) for key in names}
            if i == 0:  # of a structure that is not shown, and of one that is
                values |= {key: make_structure(Overlap(0, 0, 0, 200), math.nan, 1.0) for key in ("2", "9")}
            results[i] = replace(case, metrics=values, quality=make_quality(names))
    made = make_comparison(THREE, datasets=[replace(dataset, structures=names)])
    tables = tables_of(made)
    table = tables["discrimination"]
    assert list(table.values)[1:12] == [*(f"DSC organ {i}" for i in range(5, 15)), "DSC mean"]
    assert table.values["DSC mean"].iloc[2] == made.mean(made.datasets[0], "Dice", "nnUNetTrainerNACL")
    assert "all are in the CSV" in table.caption
    assert "DSC organ 9, CE: 1 (case_00)" in table.caption and "organ 2" not in table.caption
    full = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["method"] for row in full] == ["stock", "CE", "NACL"] and len(full[0]) == 1 + 2 * 15
    assert float(full[1]["DSC organ 1"]) == made.mean(made.datasets[0], "Dice:1", "nnUNetTrainerCE")
    statistics = tables["statistics"]
    assert "DSC organ 2" not in statistics.values["metric"].tolist() and '"Dice:2"' in statistics.to_csv()
    assert "all are in the CSV" in statistics.caption


def test_captions_say_where_no_test_can_pass():
    # 12 tests of 8 cases: 12 * 2 / 2**8 = 0.09 and 40 times that; 4 tests: 0.03
    caption = tables_of(make_comparison(THREE, cases=8))["statistics"].caption
    assert "however clear the difference: discrimination, calibration_masks. " in caption
    caption = tables_of(make_comparison(THREE, cases=12))["statistics"].caption
    assert "however clear" not in caption  # 40 * 2 / 2**12 = 0.02
    assert make_comparison(cases=5).powerless(make_dataset(THREE)) == []  # no test was made at all


def test_cells_hold_the_means_and_the_tests():
    comparison = make_comparison(THREE, cases=8)
    tables, [dataset] = tables_of(comparison), comparison.datasets
    masks = tables["calibration_masks"]
    row = masks.values.query("mask == 'union' and method == 'CE'").index[0]
    for title, metric in {"ECE": "ECE", "CECE": "CECE_mean", "NLL": "NLL", "Brier": "Brier"}.items():
        value = comparison.mean(dataset, f"{metric}:union", "nnUNetTrainerCE")
        assert masks.values[title][row] == value and masks.texts[title][row] == f"{value:.4f}"
    full = list(csv.DictReader(io.StringIO(tables["statistics"].to_csv())))
    assert len(full) == 56 and float(full[0]["low"]) <= float(full[0]["difference"]) <= float(full[0]["high"])
    shown = tables["statistics"].texts
    assert shown["verdict"].tolist()[12:16] == ["worse", "worse", "", ""] and shown["p"][0] == "0.008"


def test_several_data_sets_have_an_overview():
    datasets = [make_dataset(THREE, cases=6, name=f"Dataset00{i}_Made", seed=i) for i in (1, 2)]
    tables = tables_of(make_comparison(THREE, datasets=datasets))
    assert len(tables) == 1 + 2 * 4 and "calibration_masks_Dataset002_Made" in tables
    overview = tables["overview"].values
    assert list(overview)[:3] == ["method", "DSC Dataset001_Made", "DSC Dataset002_Made"]
    assert overview.iloc[1, 2] == tables["discrimination_Dataset002_Made"].values["DSC mean"][1]
