"""Risk-coverage curves against closed forms and a brute-force curve over all orders of ties."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_nacl.metrics.risk_coverage import aurc, selective_risks

NAN = float("nan")


def slow_area(confidence: list[float], risk: list[float]) -> float:
    """The mean, over all orders that confidence allows, of the area of the curve drawn point by
    point."""
    areas = []
    for order in permutations(range(len(risk))):
        trusted = [confidence[scan] for scan in order]
        if trusted != sorted(trusted, reverse=True):
            continue
        points = []
        for kept in range(1, len(risk) + 1):
            mean_risk = sum(risk[scan] for scan in order[:kept]) / kept
            points.append((kept / len(risk), mean_risk))
        area = 0.0
        for (left, before), (right, after) in zip(points, points[1:]):
            area += (right - left) * (before + after) / 2
        areas.append(area)
    return sum(areas) / len(areas)


SCANS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10)), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(SCANS)
def test_the_area_is_the_mean_over_all_orders_of_ties(scans):
    confidence = [confidence / 3 for confidence, _ in scans]
    risk = [risk / 10 for _, risk in scans]
    assert aurc(confidence, risk) == pytest.approx(slow_area(confidence, risk))


@pytest.mark.parametrize("n_bad", [1, 3, 8])
def test_areas_of_scans_that_are_right_or_wrong(n_bad):
    # best order: the risk is 0 until the n - b good ones are kept, then (k - (n - b)) / k
    n = 10
    risk = np.repeat([0.0, 1.0], [n - n_bad, n_bad])
    curve = [max(0, k - (n - n_bad)) / k for k in range(1, n + 1)]
    assert selective_risks(-risk, risk) == pytest.approx(curve)
    best = (sum(curve) - (curve[0] + curve[-1]) / 2) / n
    assert aurc(-risk, risk) == pytest.approx(best)
    # without any order every share of the scans has the mean risk, from a coverage of 1 / n on
    assert aurc(np.zeros(n), risk) == pytest.approx(n_bad / n * (n - 1) / n)


def test_the_area_of_evenly_spread_risks_in_the_worst_order():
    # risks 1, (n-1)/n, ... 1/n, the worst trusted most: the mean of the first k is 1 - (k-1) / 2n
    n = 40
    risk = np.arange(1, n + 1) / n
    assert aurc(risk, risk) == pytest.approx((n - 1) / n * (1 - (n - 1) / (4 * n)))


def test_unknown_confidence_is_trusted_least_and_unknown_risk_is_left_out():
    known = aurc([3, 2, 1], [0.1, 0.5, 0.9])
    assert aurc([3, 2, NAN, 9], [0.1, 0.5, 0.9, NAN]) == known
    assert math.isnan(aurc([1, 2], [0.5, NAN]))
