"""Means over cases crossed with trainings."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

SCRIPT = Path(__file__).parents[1] / "docs" / "results" / "crossed.py"
_spec = importlib.util.spec_from_file_location("crossed", SCRIPT)
sys.modules["crossed"] = importlib.util.module_from_spec(_spec)  # a dataclass looks its module up
_spec.loader.exec_module(sys.modules["crossed"])
crossed_mean = sys.modules["crossed"].crossed_mean


def test_one_training_gives_students_interval_over_cases():
    values = np.array([[0.1, 0.4, 0.2, 0.9]])
    found = crossed_mean(values)
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values[0]))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert np.isnan(found.sd_trainings)


def test_effects_that_add_up_are_told_apart():
    # trainings at -1 and 1 (variance 2), cases at -3, 0, 3 (variance 9), nothing else
    values = np.array([[-1.0], [1.0]]) + np.array([[-3.0, 0.0, 3.0]])
    found = crossed_mean(values)
    assert found.mean == pytest.approx(0)
    assert found.sd_trainings == pytest.approx(np.sqrt(2))
    assert found.sd_cases == pytest.approx(3)
    assert found.sd_residual == pytest.approx(0, abs=1e-12)
    # MS_trainings = 3 * 2 = 6, MS_cases = 2 * 9 = 18: variance (6 + 18) / 6 = 4 = 2/2 + 9/3
    freedom = 24**2 / (6**2 / 1 + 18**2 / 2)
    assert found.high == pytest.approx(stats.t.ppf(0.975, freedom) * 2)


def test_a_case_without_a_value_in_one_training_is_left_out_of_all():
    values = np.array([[0.1, np.nan, 0.3, 0.5], [0.2, 0.9, 0.1, 0.4]])
    assert crossed_mean(values) == crossed_mean(values[:, [0, 2, 3]])
    assert crossed_mean(values).n_cases == 3


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((0, 3)), np.full((2, 2), np.inf)])
def test_what_is_no_table_of_values_is_refused(values):
    with pytest.raises(ValueError, match="values must"):
        crossed_mean(values)


def test_nothing_to_average_is_nan():
    assert np.isnan(crossed_mean(np.full((2, 3), np.nan)).mean)
    assert np.isnan(crossed_mean(np.ones((2, 1))).low)
