"""Error and orders: values derived by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_nacl.compare.tables import quality_text
from nnunet_nacl.numbers.learned_quality import quality_report, trust_of, workload
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


@pytest.mark.parametrize(
    ("true", "trust", "rho"),
    [
        ([0.9, 0.1, 0.5, 0.7], [3, 2, 1, 2.5], 0.8),  # ranks 4 1 2 3 and 4 2 1 3: 1 - 6 (1 + 1) / (4 * 15)
        ([0.9, 0.1, 0.5], [1, NAN, 2], NAN),
        ([0.9, 0.1, 0.5], [1, 1, 1], NAN),
    ],
)
def test_rank_correlation_of_what_is_known(true, trust, rho):
    assert quality_report(quality_of({"1": (trust, true)}), None)["rho"] == pytest.approx(rho, nan_ok=True)


def test_workload_by_hand():
    true = [0.9, 0.3, 0.8, 0.4, 0.95, 0.2, 0.85, 0.9, 0.92, 0.88]  # three bad ones
    trust = [0.9, 0.1, 0.2, 0.3, 0.95, 0.8, 0.85, 0.9, 0.92, 0.88]  # finds 0.3, then misses, then finds 0.4
    rows = workload(trust, np.array(true) - 0.7)
    assert [row["n_cases"] for row in rows] == [1, 1, 2, 3, 5]
    assert [row["caught"] for row in rows] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 1])


def test_workload_of_what_is_not_known():
    assert workload([0.9, NAN, 0.8], [0.4, -0.4, 0.4])[0]["caught"] == 1  # looked at first
    assert math.isnan(workload([0.9], [0.4])[0]["caught"])  # nothing to catch
    assert workload([0.5] * 4, [-0.4, 0.4, 0.4, 0.4])[-1]["caught"] == pytest.approx(0.5)  # tied
