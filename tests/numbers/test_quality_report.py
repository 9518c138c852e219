"""Error, coverage and orders: values derived by hand, scipy for what scipy has."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from nnunet_nacl.numbers.dice_estimate import coverage
from nnunet_nacl.numbers.quality_report import aurc, compare_orders, workload

NAN = math.nan


def test_coverage_counts_the_ends_in_and_has_an_exact_interval():
    found = coverage([0.1, 0.1, 0.1, NAN], [0.5, 0.5, 0.5, NAN], [0.1, 0.5, 0.6, 0.3])
    assert (found.share, found.n) == (pytest.approx(2 / 3), 3)
    # Clopper and Pearson by the beta distribution
    assert found.low == pytest.approx(stats.beta.ppf(0.025, 2, 2)) and found.high == pytest.approx(
        stats.beta.ppf(0.975, 3, 1)
    )
    assert coverage([NAN], [NAN], [0.5]).n == 0


def test_aurc_by_hand():
    # most trusted first: risks 0.1, 0.5, 0.3: means 0.1, 0.3, 0.3
    assert aurc([0.9, 0.5, 0.7], [0.1, 0.3, 0.5]) == pytest.approx(0.7 / 3)


def test_equal_trust_is_the_mean_over_all_orders():
    trust, risk = np.array([3, 2, 2, 2, 1.0]), np.array([0.1, 0.9, 0.2, 0.4, 0.5])
    orders = [aurc(trust + 0.1 * np.array([0, *p, 0]), risk) for p in itertools.permutations(range(3))]
    assert aurc(trust, risk) == pytest.approx(np.mean(orders))


def test_orders_are_compared_on_the_same_cases():
    found = compare_orders([0.9, 0.1, 0.5, 0.7], {"a": [1, NAN, 2, 3], "b": [3, 2, 1, 2.5]})
    assert found["random"]["AURC"] == pytest.approx(1 - 0.7)


def test_workload_by_hand():
    true = [0.9, 0.3, 0.8, 0.4, 0.95, 0.2, 0.85, 0.9, 0.92, 0.88]  # three bad ones
    trust = [0.9, 0.1, 0.2, 0.3, 0.95, 0.8, 0.85, 0.9, 0.92, 0.88]  # finds 0.3, then misses, then finds 0.4
    rows = workload(trust, true, 0.7, shares=(0, 0.1, 0.25, 0.5, 1))
    assert [(row.n_cases, row.caught) for row in rows] == [
        (0, 0),
        (1, pytest.approx(1 / 3)),
        (3, pytest.approx(2 / 3)),
        (5, pytest.approx(1)),
        (10, pytest.approx(1)),
    ]


def test_workload_of_what_is_not_known():
    assert workload([0.9, NAN, 0.8], [0.9, 0.1, 0.9], 0.5, shares=(0.3,))[0].caught == 1  # looked at first
    assert math.isnan(workload([0.9], [0.9], 0.5)[0].caught)  # nothing to catch
    tied = workload([0.5] * 4, [0.1, 0.9, 0.9, 0.9], 0.5, shares=(0.5,))
    assert tied[0].caught == pytest.approx(0.5)
