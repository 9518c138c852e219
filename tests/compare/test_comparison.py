"""What a comparison computes: values, pairs, families of tests and means."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.compare.columns import CALIBRATION_METRICS, column_values, make_columns
from nnunet_nacl.compare.comparison import verdict_of
from nnunet_nacl.numbers.calibration_error import mask_metrics
from nnunet_nacl.numbers.overlap import Overlap
from nnunet_nacl.numbers.statistics import holm, paired_difference, wilcoxon_p
from tests.compare.synthetic import STRUCTURES, make_case, make_comparison, make_dataset, with_structure
from tests.compare.test_tables import tables_of

THREE = {"nnUNetTrainer": 1.0, "nnUNetTrainerCE": 1.5, "nnUNetTrainerNACL": 2.5}


def test_columns_hold_what_the_evaluation_says():
    case = make_case("a", np.random.default_rng(0), 1.0)
    columns, values = make_columns([STRUCTURES]), column_values(case)
    assert values.keys() == columns.keys()
    assert values["Dice:2"] == case.dice["2"]
    assert values["Dice"] == pytest.approx(np.mean(list(case.dice.values())))
    assert values["HD95_mm:1"] == case.metrics["1"].HD95_mm
    for metric in ("ECE", "CECE_mean", "CECE_sum", "NLL", "Brier"):
        for mask in ("foreground", "predicted", "all"):
            assert values[f"{metric}:{mask}"] == mask_metrics(case.bins[mask])[metric]
    assert all(metric.meaning for metric in CALIBRATION_METRICS.values())
    assert columns["HD95_mm:1"].title == "HD95 Anterior (mm)" and columns["Dice"].better == "higher"


def test_columns_of_several_data_sets_name_structures_where_they_agree():
    columns = make_columns([{"1": "Anterior", "2": "Posterior"}, {"1": "Liver"}])
    assert columns["Dice:1"].title == "DSC structure 1" and columns["Dice:2"].title == "DSC Posterior"
    case = replace(make_case("a", np.random.default_rng(0), 1.0), metrics={})
    assert math.isnan(column_values(case)["Dice"]) and "Dice:1" not in column_values(case)


def test_every_trainer_is_compared_with_the_first():
    comparison = make_comparison(THREE, cases=8)
    rows = list(comparison.statistics.itertuples())
    assert {(row.trainer, row.reference) for row in rows} == {(name, "nnUNetTrainer") for name in list(THREE)[1:]}
    # DSC, HD95 of 2 structures and all; ECE, CECE foreground; ECE, NLL, Brier of 7 masks but for that ECE
    expected = {"discrimination": 12, "calibration": 4, "calibration_masks": 40}
    assert {family: sum(row.family == family for row in rows) for family in expected} == expected
    values = comparison.values["Dataset001_Made"]
    for row in rows:
        first, second = values[row.column]["nnUNetTrainer"], values[row.column][row.trainer]
        assert row.difference == pytest.approx(second.mean() - first.mean())
        assert row.p == wilcoxon_p(second - first)
    for family in expected:
        members = [row for row in rows if row.family == family]
        assert [row.p_holm for row in members] == holm([row.p for row in members])


def test_a_clear_winner_is_better_in_every_direction():
    comparison = make_comparison({"nnUNetTrainer": 0.5, "nnUNetTrainerNACL": 4.0}, cases=12)
    verdicts = {row.column: row.verdict for row in comparison.statistics.itertuples()}
    assert verdicts["Dice"] == verdicts["Dice:1"] == "better"  # higher
    assert verdicts["NLL:all"] == verdicts["Brier:all"] == "better"  # lower
    reverse = make_comparison({"nnUNetTrainerNACL": 4.0, "nnUNetTrainer": 0.5}, cases=12)
    assert {row.column: row.verdict for row in reverse.statistics.itertuples()}["Dice"] == "worse"


def test_a_mean_against_most_cases_is_mixed():
    # a little worse in 19 cases, far better in one
    paired = paired_difference([1.0] * 20, [*np.linspace(1.1, 1.2, 19), -9.0], n_bootstrap=100, seed=0)
    assert paired.difference < 0 < paired.rank_biserial and paired.p < 0.05
    # W+ = 1 + ... + 19, W- = 20
    assert paired.rank_biserial == pytest.approx((190 - 20) / 210)
    assert verdict_of(paired, paired.p, "lower") == verdict_of(paired, paired.p, "higher") == "mixed"
    assert verdict_of(paired, 0.2, "lower") == "none" and verdict_of(paired, math.nan, "lower") == "untested"


def test_few_cases_are_not_tested_and_said_so():
    comparison = make_comparison(cases=5)
    assert {row.verdict for row in comparison.statistics.itertuples()} == {"untested"}
    [few], [single] = comparison.notes, make_comparison(cases=1).notes
    assert "only 5 cases" in few and few.endswith("intervals are too narrow to rely on.")
    assert "only 1 case," in single and single.endswith("there are no intervals.")
    assert not make_comparison(cases=6).notes


def test_undefined_values_leave_their_pairs_out():
    dataset = make_dataset(THREE, cases=8)
    nothing = Overlap(0, 0, 0, 200)
    results = dataset.results["nnUNetTrainerNACL"]
    results[2] = with_structure(results[2], "1", nothing, math.nan)
    comparison = make_comparison(THREE, datasets=[dataset])
    found = {(row.column, row.trainer): row for row in comparison.statistics.itertuples()}
    assert found["Dice:1", "nnUNetTrainerNACL"].n == found["HD95_mm:1", "nnUNetTrainerNACL"].n == 7
    assert found["Dice:1", "nnUNetTrainerCE"].n == found["Dice:2", "nnUNetTrainerNACL"].n == 8
    values = comparison.values[dataset.name]
    assert values["Dice"]["nnUNetTrainerNACL"].iloc[2] == values["Dice:2"]["nnUNetTrainerNACL"].iloc[2]


def test_a_missed_structure_brings_no_trainer_closer():
    dataset = make_dataset(THREE, cases=8)
    near, far = Overlap(50, 0, 0, 150), Overlap(10, 50, 50, 90)
    for results, hd95 in zip(dataset.results.values(), (math.nan, 30.0, 40.0)):
        missed = math.isnan(hd95)
        results[5] = with_structure(results[5], "1", near, 2.0)
        results[5] = with_structure(results[5], "2", Overlap(0, 0, 60, 140) if missed else far, hd95)
        results[6] = with_structure(with_structure(results[6], "1", near, math.nan), "2", near, math.nan)
    values = make_comparison(THREE, datasets=[dataset]).values[dataset.name]
    # the first found only what is easy: a mean over what each found would call it the closest by far
    assert [values["HD95_mm"][name].iloc[5] for name in THREE] == [2, 2, 2]
    assert [values["HD95_mm:2"][name].iloc[5] for name in THREE] == pytest.approx([math.nan, 30, 40], nan_ok=True)
    assert values["Dice"]["nnUNetTrainer"].iloc[5] == pytest.approx((1 + 0) / 2)  # no overlap
    for name in THREE:
        assert values["HD95_mm"][name].iloc[4] == np.mean(
            [values[f"HD95_mm:{key}"][name].iloc[4] for key in STRUCTURES]
        )
        assert math.isnan(values["HD95_mm"][name].iloc[6])


def test_mean_of_all_structures_is_nnunets():
    dataset = make_dataset(THREE, cases=4)
    results = dataset.results["nnUNetTrainer"]
    results[0] = with_structure(results[0], "1", Overlap(0, 0, 0, 200), math.nan)
    comparison = make_comparison(THREE, datasets=[dataset])
    structures = [np.nanmean([case.dice[key] for case in results]) for key in STRUCTURES]
    assert comparison.mean(dataset, "Dice", "nnUNetTrainer") == pytest.approx(sum(structures) / 2)
    assert comparison.mean(dataset, "ECE:all", "nnUNetTrainer") == pytest.approx(
        np.nanmean([case.ece("all") for case in results])
    )


def test_a_structure_that_a_trainer_never_finds_is_in_no_mean():
    dataset = make_dataset(THREE, cases=7)
    results = dataset.results["nnUNetTrainer"]
    for i in range(7):
        results[i] = with_structure(results[i], "2", Overlap(0, 0, 50, 150), math.nan)
    comparison = make_comparison(THREE, datasets=[dataset])
    for name in THREE:
        anterior, posterior = (np.nanmean([case.dice[key] for case in dataset.results[name]]) for key in STRUCTURES)
        assert comparison.mean(dataset, "Dice", name) == pytest.approx((anterior + posterior) / 2)
        distance = np.nanmean([case.metrics["1"].HD95_mm for case in dataset.results[name]])
        assert comparison.mean(dataset, "HD95_mm", name) == pytest.approx(distance)
    assert comparison.averaged(dataset, "Dice") == ["1", "2"] and comparison.averaged(dataset, "HD95_mm") == ["1"]
    assert tables_of(comparison)["discrimination"].caption.endswith(
        "so in no mean over structures: HD95 Posterior (mm)."
    )
