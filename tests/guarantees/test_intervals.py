"""Intervals of level 90 % hold nine in ten true values of new patients, and of those left out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from nnunet_nacl.estimators.intervals import StructureEstimate, predict_intervals_out_of_fold
from nnunet_nacl.metrics.groups import assign_cross_fit_folds
from tests.guarantees.simulation import DRAWS, is_at_least, mean_over_patients

N_NEW = 30
VOXEL_VOLUME = 0.01


class Scans(NamedTuple):
    predicted: np.ndarray
    true: np.ndarray
    patient: np.ndarray


def draw_scans(rng: np.random.Generator, n_patients: int, is_volume: bool) -> Scans:
    """Scans of patients, one to five of each; true values are too low by a bias.

    A patient whose value is far from the predicted one in one scan is so in all, and has few scans.
    """
    ease = rng.random(n_patients)
    patient = np.repeat(np.arange(n_patients), 1 + np.floor(5 * ease).astype(int))
    error_of_patient = rng.normal(0, 0.02 + 0.1 * (1 - ease))
    error = error_of_patient[patient] + rng.normal(-0.05, 0.015, len(patient))
    if is_volume:
        predicted = rng.lognormal(1, 1, len(patient))
        true = np.maximum(predicted + error * (predicted + VOXEL_VOLUME), 0)
    else:
        predicted = rng.uniform(0.5, 0.8, len(patient))
        true = np.clip(predicted + error, 0, 1)
    return Scans(predicted, true, patient)


def is_inside(intervals: np.ndarray, true: np.ndarray) -> np.ndarray:
    return (intervals[:, 1] <= true) & (true <= intervals[:, 2])


@pytest.mark.parametrize("n_patients", [10, 30])
@pytest.mark.parametrize("is_volume", [False, True], ids=["Dice", "volume"])
def test_intervals_hold_the_true_values_of_new_patients(is_volume, n_patients):
    """Learned from some patients, applied to others, with given predictions.

    Of the true values 0.92 (10 patients) and 0.91 (30) are inside; 0.84 and 0.89 with n patients in
    place of n + 1, and 0.83 and 0.84 were scans counted for patients. What is proved for them is
    0.8.
    """
    rng = np.random.default_rng(0)
    voxel_volume = VOXEL_VOLUME if is_volume else None
    coverage = []
    for _ in range(DRAWS):
        scans = draw_scans(rng, n_patients + N_NEW, is_volume)
        is_new = scans.patient >= n_patients
        known = [values[~is_new] for values in scans]
        estimate = StructureEstimate.fit(*known, voxel_volume)
        inside = is_inside(estimate.predict(scans.predicted[is_new]), scans.true[is_new])
        coverage.append(mean_over_patients(inside, scans.patient[is_new]))
    assert is_at_least(coverage, 0.9)


def test_intervals_of_patients_who_are_left_out_hold_their_true_values():
    """Eleven patients, each predicted by the ten others or nine of them.

    Of the true values 0.92 are inside; 0.85 with n patients in place of n + 1, and 0.84 were scans
    counted for patients.
    """
    rng = np.random.default_rng(0)
    coverage = []
    for _ in range(DRAWS):
        scans = draw_scans(rng, 11, is_volume=False)
        folds = assign_cross_fit_folds([str(patient) for patient in scans.patient])
        inside = is_inside(predict_intervals_out_of_fold(*scans, folds), scans.true)
        coverage.append(mean_over_patients(inside, scans.patient))
    assert is_at_least(coverage, 0.9)
