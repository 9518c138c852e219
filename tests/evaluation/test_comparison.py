"""What a comparison computes: values, pairs, families of tests and means; and the tables of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.evaluation.comparison import CALIBRATION_METRICS, Comparison
from nnunet_nacl.evaluation.dataset import few_cases
from nnunet_nacl.evaluation.table import Table
from nnunet_nacl.evaluation.tables import comparison_tables
from nnunet_nacl.metrics.calibration_error import mask_metrics
from nnunet_nacl.metrics.overlap import Overlap
from nnunet_nacl.metrics.statistics import holm, paired_difference, wilcoxon_p
from tests.evaluation.synthetic import STRUCTURES, THREE, make_comparison, with_structure

NOTHING = Overlap(0, 0, 0, 200)


def tables_of(*comparisons: Comparison) -> dict[str, Table]:
    """By id, without those of promises."""
    return {table.id: table for table in comparison_tables(comparisons)}


def test_values_are_those_of_the_records():
    dataset = make_comparison(THREE, cases=3)
    assert dataset.values.columns.tolist() == [
        (column, name) for column in dataset.columns for name in THREE
    ]
    assert dataset.values.index.tolist() == dataset.cases
    for name, records in dataset.records.items():
        for record in records:
            values = dataset.values.xs(name, axis=1, level=1).loc[record.case]
            rows = record.structures
            assert values["Dice:2"] == rows.Dice["2"] and values["HD95_mm:1"] == rows.HD95_mm["1"]
            assert (
                values["Dice"] == pytest.approx(rows.Dice.mean())
                and values["HD95_mm"] == rows.HD95_mm.mean()
            )
            for metric in ("ECE", "CECE_mean", "CECE_sum", "NLL", "Brier"):
                for mask in ("foreground", "predicted", "all"):
                    assert values[f"{metric}:{mask}"] == mask_metrics(record.bins[mask])[metric]
    assert all(metric.meaning for metric in CALIBRATION_METRICS.values())


def test_every_trainer_is_compared_with_the_first():
    comparison = make_comparison(THREE, cases=8)
    rows, values = comparison.statistics, comparison.values
    pairs = set(zip(rows.trainer, rows.reference))
    assert pairs == {(name, "nnUNetTrainer") for name in list(THREE)[1:]}
    # DSC, HD95 of 2 structures and all; ECE, CECE foreground; ECE, NLL, Brier of 7 masks but for
    # that ECE
    expected = {"discrimination": 12, "calibration": 4, "calibration_masks": 40}
    assert rows.family.value_counts().to_dict() == expected
    for row in rows.itertuples():
        first, second = values[row.column]["nnUNetTrainer"], values[row.column][row.trainer]
        assert row.difference == pytest.approx(second.mean() - first.mean())
        assert row.p == wilcoxon_p(second - first)
    for _, members in rows.groupby("family"):
        assert members.p_holm.tolist() == holm(members.p.tolist())


def test_a_mean_against_most_cases_is_mixed(monkeypatch):
    # a little worse in 19 cases, far better in one
    paired = paired_difference(
        [1.0] * 20, [*np.linspace(1.1, 1.2, 19), -9.0], n_bootstrap=100, seed=0
    )
    assert paired.difference < 0 < paired.rank_biserial and paired.p < 0.05
    # W+ = 1 + ... + 19, W- = 20
    assert paired.rank_biserial == pytest.approx((190 - 20) / 210)
    for p, verdict in ((1e-9, "mixed"), (0.2, "none"), (math.nan, "untested")):
        made = replace(paired, p=p)
        monkeypatch.setattr(
            "nnunet_nacl.evaluation.comparison.paired_difference", lambda *_, made=made, **__: made
        )
        assert set(make_comparison().statistics.verdict) == {verdict}  # higher is better, or lower


def test_few_cases_are_not_tested_and_said_so():
    comparison = make_comparison(cases=5)
    assert set(comparison.statistics.verdict) == {"untested"}
    [few], [single] = few_cases(comparison), few_cases(make_comparison(cases=1))
    assert "only 5 cases" in few and few.endswith("intervals are too narrow to rely on.")
    assert "only 1 case," in single and single.endswith("there are no intervals.")
    assert not few_cases(make_comparison(cases=6))


def test_undefined_values_leave_their_pairs_out_and_means_are_nnunets():
    dataset = make_comparison(THREE, cases=8)
    records = dataset.records["nnUNetTrainerNACL"]
    records[2] = with_structure(records[2], "1", NOTHING, math.nan)
    n = dataset.statistics.set_index(["column", "trainer"]).n
    assert n["Dice:1", "nnUNetTrainerNACL"] == n["HD95_mm:1", "nnUNetTrainerNACL"] == 7
    assert n["Dice:1", "nnUNetTrainerCE"] == n["Dice:2", "nnUNetTrainerNACL"] == 8
    values = dataset.values.xs("nnUNetTrainerNACL", axis=1, level=1)
    assert values["Dice"].iloc[2] == values["Dice:2"].iloc[2]
    structures = [
        np.nanmean([record.structures.Dice[key] for record in records]) for key in STRUCTURES
    ]
    means = dataset.means.loc["nnUNetTrainerNACL"]
    assert (
        means.Dice == pytest.approx(sum(structures) / 2)
        and means["ECE:all"] == values["ECE:all"].mean()
    )


def test_a_missed_structure_brings_no_trainer_closer():
    dataset = make_comparison(THREE, cases=8)
    near, far = Overlap(50, 0, 0, 150), Overlap(10, 50, 50, 90)
    for records, hd95 in zip(dataset.records.values(), (math.nan, 30.0, 40.0)):
        missed = math.isnan(hd95)
        records[5] = with_structure(records[5], "1", near, 2.0)
        records[5] = with_structure(
            records[5], "2", Overlap(0, 0, 60, 140) if missed else far, hd95
        )
        records[6] = with_structure(
            with_structure(records[6], "1", near, math.nan), "2", near, math.nan
        )
    values = dataset.values
    # the first found only what is easy: a mean over what each found would call it the closest by
    # far
    assert (
        values["HD95_mm"].iloc[5].tolist() == [2, 2, 2] and values["HD95_mm"].iloc[6].isna().all()
    )
    assert values["HD95_mm:2"].iloc[5].tolist() == pytest.approx([math.nan, 30, 40], nan_ok=True)
    assert values["Dice"]["nnUNetTrainer"].iloc[5] == pytest.approx((1 + 0) / 2)  # no overlap


def test_a_structure_that_a_trainer_never_finds_is_in_no_mean():
    dataset = make_comparison(THREE, cases=7)
    records = dataset.records["nnUNetTrainer"]
    records[:] = [
        with_structure(record, "2", Overlap(0, 0, 50, 150), math.nan) for record in records
    ]
    for name, records in dataset.records.items():
        means = pd.concat([record.structures for record in records]).groupby(level=0).mean()
        shown = dataset.means.loc[name]
        assert shown.Dice == pytest.approx(means.Dice.mean()) and shown.HD95_mm == pytest.approx(
            means.HD95_mm["1"]
        )
    caption = tables_of(dataset)["discrimination"].caption
    assert caption.endswith("so in no mean over structures: HD95 Posterior (mm).")
