"""Error and orders: values derived by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from nnunet_nacl.compare.tables import quality_text
from nnunet_nacl.numbers.quality_report import aurc, compare_orders, quality_report, trust_of, workload
from tests.numbers.problems import quality_of

NAN = math.nan


def test_numbers_of_a_method():
    expected, true = [0.9, 0.6, 0.7, NAN], [0.8, 0.5, 0.9, 0.0]
    rows = quality_of({"1": (expected, true), "2": ([0.8, NAN, 0.9, NAN], [0.9, NAN, 0.7, NAN])})
    rows = rows.assign(predicted_dice_low=0.6, predicted_dice_high=0.8)
    rows.loc[rows.predicted_dice.isna(), ["predicted_dice_low", "predicted_dice_high"]] = NAN
    printed = quality_text(rows, dict.fromkeys("12", 0.75))  # errors 0.1, 0.1, 0.2, 0.1, 0.2; ends are within
    assert "MAE predicted 0.140" in " ".join(printed.split()) and "40 % of 5" in printed and "3 of 4" in printed
    found = quality_report(rows, {"1": 0.75, "2": 0.6})
    assert found["width"] == pytest.approx(0.2) and found["threshold"] == {"1": 0.75, "2": 0.6}
    assert (found["n_cases"], found["n_bad"]) == (4, 2)  # the second and the fourth, by their first structure
    # of the second structure alone the third is bad, which the first would not have looked at before the second
    found = quality_report(rows, {"2": 0.75})
    assert found["n_bad"] == 1 and [row["caught"] for row in found["workload"]["predicted Dice"]] == [0, 0, 0, 0, 0]
    none = quality_report(rows, None)
    assert (none["threshold"], none["workload"], none["n_bad"]) == (None, {}, 0)
    assert none["MAE predicted"] == found["MAE predicted"]
    assert "-bad 0.7 adds" in quality_text(rows, None)


def test_what_cases_are_ordered_by():
    rows = quality_of({"1": ([0.9, 0.6, NAN, NAN], [1] * 4)}, entropy=[0.1, 0.2, 0.3, NAN])
    found = trust_of(rows)
    np.testing.assert_array_equal(found["predicted Dice"], [0.9, 0.6, NAN, NAN])
    np.testing.assert_allclose(found["entropy"], [-0.1, -0.2, -0.3, NAN])
    assert found["entropy"].index.tolist() == [f"case_{i}" for i in range(4)] and "folds" not in found
    by_folds = trust_of(rows.assign(members_dice=[0.7, NAN, 0.8, 0.9]))["folds"]
    np.testing.assert_array_equal(by_folds, [0.7, NAN, 0.8, 0.9])


def test_aurc_by_hand():
    # most trusted first: risks 0.1, 0.5, 0.3: means 0.1, 0.3, 0.3
    assert aurc([0.9, 0.5, 0.7], [0.1, 0.3, 0.5]) == pytest.approx(0.7 / 3)


def test_equal_trust_is_the_mean_over_all_orders():
    trust, risk = np.array([3, 2, 2, 2, 1.0]), np.array([0.1, 0.9, 0.2, 0.4, 0.5])
    orders = [aurc(trust + 0.1 * np.array([0, *p, 0]), risk) for p in itertools.permutations(range(3))]
    assert aurc(trust, risk) == pytest.approx(np.mean(orders))


def test_orders_are_compared_on_the_same_cases():
    found = compare_orders([0.9, 0.1, 0.5, 0.7], {"a": [1, NAN, 2, 3], "b": [3, 2, 1, 2.5]})
    assert found["random"] == pytest.approx({"AURC": 1 - 0.7, "rho": NAN}, nan_ok=True)
    assert found["a"]["rho"] == pytest.approx(-0.5) and found["b"]["rho"] == found["oracle"]["rho"] == 1


def test_workload_by_hand():
    true = [0.9, 0.3, 0.8, 0.4, 0.95, 0.2, 0.85, 0.9, 0.92, 0.88]  # three bad ones
    trust = [0.9, 0.1, 0.2, 0.3, 0.95, 0.8, 0.85, 0.9, 0.92, 0.88]  # finds 0.3, then misses, then finds 0.4
    rows = workload(trust, true, 0.7, shares=(0, 0.1, 0.25, 0.5, 1))
    assert [row["n_cases"] for row in rows] == [0, 1, 3, 5, 10]
    assert [row["caught"] for row in rows] == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_workload_of_what_is_not_known():
    assert workload([0.9, NAN, 0.8], [0.9, 0.1, 0.9], 0.5, shares=(0.3,))[0]["caught"] == 1  # looked at first
    assert math.isnan(workload([0.9], [0.9], 0.5)[0]["caught"])  # nothing to catch
    assert workload([0.5] * 4, [0.1, 0.9, 0.9, 0.9], 0.5, shares=(0.5,))[0]["caught"] == pytest.approx(0.5)  # tied
