"""What a comparison computes: values, pairs, families of tests and means; and the tables of it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.comparison.alignment import few_cases
from nnunet_nacl.comparison.comparison import Comparison
from nnunet_nacl.comparison.table import Table
from nnunet_nacl.comparison.tables import comparison_tables
from nnunet_nacl.metrics.calibration_error import mask_metrics
from nnunet_nacl.metrics.overlap import FoundComponents, Overlap
from nnunet_nacl.metrics.statistics import holm, sign_flip_p, wilcoxon_p
from tests.comparison.synthetic import (
    STRUCTURES,
    THREE,
    make_comparison,
    make_record,
    with_components,
    with_structure,
)

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
            values = values_of_method.loc[record.name]
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
    # Dice, HD95 of all, NLL of predicted and all, Brier of predicted; Dice, HD95 of 2 structures;
    # ECE, CECE of the foreground; ECE, NLL, Brier of 7 masks but for those four
    expected = {
        "leading": 10,
        "exploratory_structures": 8,
        "exploratory_foreground": 4,
        "exploratory_masks": 34,
    }
    assert rows.family.value_counts().to_dict() == expected
    for row in rows.itertuples():
        values = comparison.values[row.column]
        differences = values[row.trainer] - values["nnUNetTrainer"]
        assert row.difference == pytest.approx(differences.mean())
        assert row.p == sign_flip_p(differences, seed=0)
        assert row.p_wilcoxon == wilcoxon_p(differences)
    for _, members in rows.groupby("family"):
        assert members.p_holm.tolist() == holm(members.p.tolist())


@pytest.fixture
def with_copies() -> Comparison:
    """A copy of the reference and of NACL each, as maps leave their segmentations."""
    trainers = THREE | {"nnUNetTrainer+calibrated": 1.0, "nnUNetTrainerNACL+calibrated": 2.5}
    comparison = make_comparison(trainers, cases=12)
    records = comparison.records["nnUNetTrainerNACL+calibrated"]
    for name, other in zip(("nnUNetTrainerNACL", "nnUNetTrainerNACL+calibrated"), (2.0, 2.5)):
        for i, record in enumerate(comparison.records[name]):
            calibrated = make_record(record.name, np.random.default_rng([0, i]), other)
            comparison.records[name][i] = replace(record, bins=calibrated.bins)
    assert records[0].structures.equals(comparison.records["nnUNetTrainerNACL"][0].structures)
    return comparison


def test_what_has_the_values_of_another_method_is_not_tested_again(with_copies):
    tests = with_copies.statistics.set_index(["column", "trainer"])
    equal = tests.xs("nnUNetTrainer+calibrated", level="trainer")
    assert set(equal.verdict) == {"equal"}
    assert set(equal.same_as) == {"nnUNetTrainer"}
    assert equal[["p", "p_wilcoxon", "p_holm"]].isna().all(axis=None)

    copied = tests.xs("nnUNetTrainerNACL+calibrated", level="trainer")
    original = tests.xs("nnUNetTrainerNACL", level="trainer")
    is_copy = copied.same_as == "nnUNetTrainerNACL"
    assert set(copied.index[is_copy]) == {
        *("Dice", "Dice:1", "Dice:2"),
        *("HD95_mm", "HD95_mm:1", "HD95_mm:2"),
    }
    shared = ["p", "p_wilcoxon", "p_holm", "verdict"]
    pd.testing.assert_frame_equal(copied.loc[is_copy, shared], original.loc[is_copy, shared])
    assert (copied.same_as[~is_copy] == "").all()

    # of three methods that are not the reference one is equal to it and one a copy in 2 of 5
    assert with_copies.family_sizes["leading"] == 2 * 5 + 3
    without = replace(with_copies, methods=with_copies.methods[:3])
    p_of_dice = without.statistics.set_index(["column", "trainer"]).p_holm["Dice:1"]
    pd.testing.assert_series_equal(tests.p_holm["Dice:1"][p_of_dice.index], p_of_dice)


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


def test_captions_name_cases_without_a_value_once_for_all_that_lack_them(dataset):
    third, fifth = (dataset.records["nnUNetTrainer"][i].name for i in (2, 4))
    for records in dataset.records.values():
        records[4] = with_structure(records[4], "2", NOTHING, math.nan)
    label = dataset.labels["nnUNetTrainerNACL"]
    lacks_third = f"Dice Anterior of {label}, HD95 Anterior (mm) of {label}: 1 ({third})"
    lacks_fifth = f"Dice Posterior, HD95 Posterior (mm): 1 ({fifth})"
    caption = tables_of(dataset)["segmentation"].caption
    assert f"Undefined and left out of the means: {lacks_third}; {lacks_fifth}." in caption


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
    caption = tables_of(dataset)["segmentation"].caption
    assert caption.endswith("so in no mean over structures: HD95 Posterior (mm).")


@pytest.fixture
def with_lesions() -> Comparison:
    """Eight cases; the second structure has two components in the truth of three, none in one.

    The reference touches one of each two; CE touches both and invents one in every case; NACL is as
    the reference.
    """
    comparison = make_comparison(THREE, cases=8)
    for name, records in comparison.records.items():
        found = FoundComponents(true=2, touched=1, false=0)
        of_absent = FoundComponents(true=0, touched=0, false=0)
        if name == "nnUNetTrainerCE":
            found = FoundComponents(true=2, touched=2, false=1)
            of_absent = FoundComponents(true=0, touched=0, false=1)
        for i in range(3):
            records[i] = with_components(records[i], "2", found)
        records[3] = with_components(records[3], "2", of_absent)
    return comparison


def test_components_are_compared_of_lesions(with_lesions):
    before = make_comparison(THREE, cases=8)
    rows = with_lesions.statistics
    of_components = rows[rows.family == "exploratory_components"]
    columns = ["component_recall:2", "false_components:2", "component_F1:2"]
    assert of_components.column.drop_duplicates().tolist() == columns
    # Holm's correction of all other tests is what it is without these
    others = rows[rows.family != "exploratory_components"].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, before.statistics)

    of_ce = of_components[of_components.trainer == "nnUNetTrainerCE"].set_index("column")
    assert of_ce.n.tolist() == [7, 8, 7]  # without a true component there is no share of them
    assert of_ce.difference["component_recall:2"] == pytest.approx(3 * (1 - 1 / 2) / 7)
    assert of_ce.difference["false_components:2"] == pytest.approx(4 / 8)
    assert of_ce.n_better.tolist() == [3, 0, 3] and of_ce.n_worse.tolist() == [0, 4, 0]

    table = tables_of(with_lesions)["segmentation"]
    values = table.values.set_index(["structure", "method"])
    titles = ["components touched", "false components", "component F1"]
    assert values.columns.tolist() == ["Dice", "HD95 (mm)", *titles]
    touched_by_ce = values.loc[("Posterior", "CE"), titles].tolist()
    # F1 = 2 * 2 / (2 * 2 + 0 + 1) in three cases, 0 in the absent one
    assert touched_by_ce == pytest.approx([1, 4 / 8, (3 * 4 / 5 + 0 + 4) / 8])
    assert values.loc["Anterior", titles].isna().all(axis=None)
    marks = table.marks.set_index(table.values.structure).loc["Posterior"]
    assert marks["false components"].tolist() == ["best", "", "best"]
    assert "Touched" in table.caption
    assert "Touched" not in tables_of(before)["segmentation"].caption


def test_what_is_in_every_case_is_no_lesion_however_many_its_components(with_lesions):
    for records in with_lesions.records.values():
        records[3] = with_components(records[3], "2", FoundComponents(true=9, touched=9, false=0))
    assert not [column for column in with_lesions.columns if "component" in column]


def test_a_user_names_the_structures_whose_components_are_compared(with_lesions):
    anterior = replace(with_lesions, findings=["1"])
    named = [column for column in anterior.columns if "component" in column]
    assert named == ["component_recall:1", "false_components:1", "component_F1:1"]
    assert not [name for name in replace(with_lesions, findings=[]).columns if "component" in name]


def test_components_of_the_only_structure_are_tested_once():
    """Its Dice is that of all together, which is tested already; its components are nowhere
    else."""
    comparison = replace(make_comparison(cases=8), structures={"1": "lesion"}, findings=["1"])
    columns = comparison.statistics.column
    assert "Dice:1" not in set(columns)
    assert columns[columns.str.contains("component")].value_counts().to_dict() == {
        "component_recall:1": 1,
        "false_components:1": 1,
        "component_F1:1": 1,
    }
