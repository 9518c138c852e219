"""What a comparison computes: values, pairs, families of tests and means; and the tables of it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.evaluation.comparison import Comparison
from nnunet_nacl.evaluation.dataset import few_cases
from nnunet_nacl.evaluation.table import Table
from nnunet_nacl.evaluation.tables import comparison_tables
from nnunet_nacl.metrics.calibration_error import mask_metrics
from nnunet_nacl.metrics.overlap import Overlap
from nnunet_nacl.metrics.statistics import PairedDifference, holm, paired_difference, wilcoxon_p
from tests.evaluation.synthetic import STRUCTURES, THREE, make_comparison, with_structure

NOTHING = Overlap(0, 0, 0, 200)


def tables_of(*comparisons: Comparison) -> dict[str, Table]:
    """By id, without those of promises."""
    return {table.id: table for table in comparison_tables(comparisons)}


def test_values_are_those_of_the_records():
    dataset = make_comparison(THREE, cases=3)
    assert dataset.values.columns.tolist() == list(product(dataset.columns, THREE))
    assert dataset.values.index.tolist() == dataset.cases
    for name, records in dataset.records.items():
        values_of_method = dataset.values.xs(name, axis=1, level=1)
        for record in records:
            values = values_of_method.loc[record.case]
            rows = record.structures
            assert values["Dice:2"] == rows.Dice["2"]
            assert values["HD95_mm:1"] == rows.HD95_mm["1"]
            assert values["Dice"] == pytest.approx(rows.Dice.mean())
            assert values["HD95_mm"] == rows.HD95_mm.mean()
            for mask in ("foreground", "predicted", "all"):
                scores = mask_metrics(record.bins[mask])
                for metric in ("ECE", "CECE_mean", "CECE_sum", "NLL", "Brier"):
                    assert values[f"{metric}:{mask}"] == scores[metric]


def test_every_trainer_is_compared_with_the_first():
    comparison = make_comparison(THREE, cases=8)
    rows = comparison.statistics
    others = [name for name in THREE if name != "nnUNetTrainer"]
    assert set(rows.reference) == {"nnUNetTrainer"}
    assert set(rows.trainer) == {*others}
    # DSC, HD95 of 2 structures and all; ECE, CECE foreground; ECE, NLL, Brier of 7 masks but for
    # that ECE
    expected = {"discrimination": 12, "calibration": 4, "calibration_masks": 40}
    assert rows.family.value_counts().to_dict() == expected
    for row in rows.itertuples():
        values = comparison.values[row.column]
        differences = values[row.trainer] - values["nnUNetTrainer"]
        assert row.difference == pytest.approx(differences.mean())
        assert row.p == wilcoxon_p(differences)
    for _, members in rows.groupby("family"):
        assert members.p_holm.tolist() == holm(members.p.tolist())


def mean_against_most_cases() -> PairedDifference:
    """A little worse in 19 cases, far better in one."""
    values = [*np.linspace(1.1, 1.2, 19), -9.0]
    return paired_difference([1.0] * 20, values, n_bootstrap=100, seed=0)


def test_ranks_can_point_the_other_way_than_the_mean():
    paired = mean_against_most_cases()
    assert paired.difference < 0
    assert paired.p < 0.05
    # W+ = 1 + ... + 19, W- = 20
    assert paired.rank_biserial == pytest.approx((190 - 20) / 210)


@pytest.mark.parametrize(("p", "verdict"), [(1e-9, "mixed"), (0.2, "none"), (math.nan, "untested")])
def test_a_clear_difference_whose_mean_is_against_most_cases_is_mixed(monkeypatch, p, verdict):
    paired = replace(mean_against_most_cases(), p=p)
    monkeypatch.setattr(
        "nnunet_nacl.evaluation.comparison.paired_difference", lambda *_, **__: paired
    )
    assert set(make_comparison().statistics.verdict) == {verdict}  # higher is better, or lower


def test_few_cases_are_not_tested_and_said_so():
    comparison = make_comparison(cases=5)
    assert set(comparison.statistics.verdict) == {"untested"}
    [note] = few_cases(comparison)
    assert "only 5 cases" in note
    assert note.endswith("intervals are too narrow to rely on.")
    [note] = few_cases(make_comparison(cases=1))
    assert "only 1 case," in note
    assert note.endswith("there are no intervals.")
    assert not few_cases(make_comparison(cases=6))


@pytest.fixture
def dataset() -> Comparison:
    """Eight cases; the third of NACL has neither truth nor prediction of the first structure."""
    comparison = make_comparison(THREE, cases=8)
    records = comparison.records["nnUNetTrainerNACL"]
    records[2] = with_structure(records[2], "1", NOTHING, math.nan)
    return comparison


def test_undefined_values_leave_their_pairs_out(dataset):
    n = dataset.statistics.set_index(["column", "trainer"]).n
    assert n["Dice:1", "nnUNetTrainerNACL"] == n["HD95_mm:1", "nnUNetTrainerNACL"] == 7
    assert n["Dice:1", "nnUNetTrainerCE"] == n["Dice:2", "nnUNetTrainerNACL"] == 8


def test_means_over_structures_are_nnunets(dataset):
    values = dataset.values.xs("nnUNetTrainerNACL", axis=1, level=1)
    assert values["Dice"].iloc[2] == values["Dice:2"].iloc[2]
    means = dataset.means.loc["nnUNetTrainerNACL"]
    mean_of_structures = [values[f"Dice:{key}"].mean() for key in STRUCTURES]
    assert means.Dice == pytest.approx(sum(mean_of_structures) / 2)
    assert means["ECE:all"] == values["ECE:all"].mean()


def test_a_missed_structure_brings_no_trainer_closer():
    """The first one missed what is hard to find: a mean over what each found would call it the
    closest by far."""
    dataset = make_comparison(THREE, cases=8)
    near = Overlap(50, 0, 0, 150)
    far = Overlap(10, 50, 50, 90)
    missed = Overlap(0, 0, 60, 140)
    hard = {
        "nnUNetTrainer": (missed, math.nan),
        "nnUNetTrainerCE": (far, 30.0),
        "nnUNetTrainerNACL": (far, 40.0),
    }
    for name, (overlap, hd95_mm) in hard.items():
        records = dataset.records[name]
        records[5] = with_structure(records[5], "1", near, 2.0)
        records[5] = with_structure(records[5], "2", overlap, hd95_mm)
        records[6] = with_structure(records[6], "1", near, math.nan)
        records[6] = with_structure(records[6], "2", near, math.nan)
    values = dataset.values
    assert values["HD95_mm"].iloc[5].tolist() == [2, 2, 2]
    assert values["HD95_mm"].iloc[6].isna().all()
    assert values["HD95_mm:2"].iloc[5].tolist() == pytest.approx([math.nan, 30, 40], nan_ok=True)
    assert values["Dice"]["nnUNetTrainer"].iloc[5] == pytest.approx((1 + 0) / 2)  # no overlap


def test_a_structure_that_a_trainer_never_finds_is_in_no_mean():
    dataset = make_comparison(THREE, cases=7)
    missed = Overlap(0, 0, 50, 150)
    records = dataset.records["nnUNetTrainer"]
    records[:] = [with_structure(record, "2", missed, math.nan) for record in records]
    for name, records_of_method in dataset.records.items():
        rows = pd.concat([record.structures for record in records_of_method])
        means = rows.groupby(level=0).mean()
        shown = dataset.means.loc[name]
        assert shown.Dice == pytest.approx(means.Dice.mean())
        assert shown.HD95_mm == pytest.approx(means.HD95_mm["1"])
    caption = tables_of(dataset)["discrimination"].caption
    assert caption.endswith("so in no mean over structures: HD95 Posterior (mm).")
