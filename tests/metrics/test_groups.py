"""Folds of a cross-fit."""

from __future__ import annotations

import pytest

from nnunet_nacl.metrics.groups import assign_cross_fit_folds

CASES = [f"case_{i:02d}" for i in range(30)]


def test_five_folds_of_a_training_are_those_of_the_cross_fit():
    folds = [str(i % 5) for i in range(30)]
    assert assign_cross_fit_folds(CASES, folds) == [f"fold_{fold}" for fold in folds]


def test_fewer_folds_of_a_training_are_divided():
    folds = [str(i % 2) for i in range(30)]
    parts = assign_cross_fit_folds(CASES, folds)
    assert len(set(parts)) == 6
    assert {parts.count(part) for part in parts} == {5}
    for part, fold in zip(parts, folds):
        assert part.startswith(f"fold_{fold}")


def test_a_patient_in_two_folds_of_a_training_is_in_one_part():
    parts = assign_cross_fit_folds(["a", "a", "b", "c"], ["0", "1", "0", "1"])
    assert parts[0] == parts[1]
    assert len(set(parts)) == 3


def test_ten_parts_of_like_size_keep_patients_together():
    patients = [f"patient{i // 3}" for i in range(75)]
    parts = assign_cross_fit_folds(patients)
    assert len(set(zip(patients, parts))) == 25
    sizes = [parts.count(part) for part in set(parts)]
    assert len(sizes) == 10
    assert max(sizes) - min(sizes) <= 3


def test_one_patient_is_refused():
    with pytest.raises(ValueError, match="one patient"):
        assign_cross_fit_folds(["a", "a"])
