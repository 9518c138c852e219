"""A further slope behind a map: closed forms, its interval, and what it does to a map."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.last_slope import fit_last_slope, scaled
from nnunet_nacl.calibration.likelihood import case_loss
from tests.calibration.problems import drawn_from, exact_for

SLOPES, OFFSETS = np.array([[0.8, 0.6], [0.7, 0.9], [0.5, 1.1]]), np.array([[-0.2, 0.1], [0.3, 0.0], [0.0, 0.2]])
CONDITIONAL = CalibrationMap(SLOPES, OFFSETS)
MATRIX = CalibrationMap(SLOPES[:, :, None] * np.eye(2, 3) + 0.1 * (np.eye(2, 3) == 0), OFFSETS)
REGIONS = CalibrationMap(np.array([[0.8, 0.6], [0.7, 0.9]]), np.array([[-0.2, 0.1], [0.3, 0.0]]), regions=True)


@pytest.mark.parametrize("found", [CONDITIONAL, MATRIX, CalibrationMap([[0.9, 0.9]], [[0.0, 0.1]])])
def test_the_slope_of_voxels_that_are_exact_is_found(found):
    cases = exact_for(scaled(found, 1.25), seed=1) + exact_for(scaled(found, 1.25), seed=2)
    one = fit_last_slope(cases, found)
    assert one.slope == pytest.approx(1.25, abs=1e-5) and one.low == pytest.approx(one.high, abs=1e-4)
    assert one.nll_of_slope < one.nll_of_map and (one.n_cases, one.n_patients) == (2, 2)
    tables = scaled(found, one.slope).tables()
    assert one.nll_of_slope == pytest.approx(np.mean([case_loss(case, *tables) for case in cases]))


@pytest.mark.parametrize("found", [CONDITIONAL, MATRIX, REGIONS])
def test_its_interval_leaves_1_out_where_a_slope_is_needed(found):
    fine = fit_last_slope(drawn_from(found, cases=8, seed=3), found)
    assert fine.low < 1 < fine.high and not fine.applied
    odd = fit_last_slope(drawn_from(scaled(found, 0.7), cases=8, seed=3), found)
    assert odd.low < 0.7 < odd.high < 1 and odd.applied


def test_the_interval_covers_and_patients_are_its_draws():
    covered = []
    for seed in range(40):
        one = fit_last_slope(drawn_from(CONDITIONAL, cases=5, voxels=300, seed=seed), CONDITIONAL)
        covered.append(one.low <= 1 <= one.high)
    assert sum(covered) >= 35
    cases = drawn_from(CONDITIONAL, cases=4, voxels=300)
    twice, once = fit_last_slope(cases * 2, CONDITIONAL, [*range(4), *range(4)]), fit_last_slope(cases, CONDITIONAL)
    assert (twice.slope, twice.low, twice.high) == pytest.approx((once.slope, once.low, once.high))
    single = fit_last_slope(cases[:1], CONDITIONAL)
    assert math.isnan(single.low) and not single.applied
