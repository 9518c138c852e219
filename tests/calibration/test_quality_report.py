"""How well predicted Dice agrees with Dice, and what a look at some cases finds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from nnunet_nacl.calibration.quality_report import confidence_scores, quality_report, workload
from nnunet_nacl.calibration.quality_texts import quality_text
from tests.estimators.problems import quality_of

NAN = math.nan


@pytest.fixture
def cases() -> pd.DataFrame:
    """Four cases of two structures; the second is predicted in the first and third case alone."""
    first = ([0.9, 0.6, 0.7, NAN], [0.8, 0.5, 0.9, 0.0])
    second = ([0.8, NAN, 0.9, NAN], [0.9, NAN, 0.7, NAN])
    table = quality_of({"1": first, "2": second})
    is_predicted = table.predicted_dice.notna()
    table["predicted_dice_low"] = np.where(is_predicted, 0.6, NAN)
    table["predicted_dice_high"] = np.where(is_predicted, 0.8, NAN)
    return table


def test_a_report_is_printed_with_error_coverage_and_bad_cases(cases):
    # errors 0.1, 0.1, 0.2, 0.1, 0.2; two of the five lie in their intervals, ends included
    printed = quality_text(cases, dict.fromkeys("12", 0.75))
    assert "MAE predicted 0.140" in " ".join(printed.split())
    assert "40 % of 5" in printed
    assert "3 of 4" in printed


def test_each_structure_may_have_a_limit_of_its_own(cases):
    report = quality_report(cases, {"1": 0.75, "2": 0.6})
    assert report["width"] == pytest.approx(0.2)
    assert report["threshold"] == {"1": 0.75, "2": 0.6}
    assert report["n_cases"] == 4
    assert report["n_bad"] == 2  # the second and the fourth, by their first structure


def test_cases_are_ordered_by_the_structures_that_count(cases):
    """By its second structure alone the third case is bad, and it is the last to be looked at."""
    report = quality_report(cases, {"2": 0.75})
    assert report["threshold"] == 0.75
    assert report["n_bad"] == 1
    assert [look["caught"] for look in report["workload"]["predicted Dice"]] == [0, 0, 0, 0, 0]


def test_without_a_limit_no_case_is_bad(cases):
    report = quality_report(cases, None)
    assert (report["threshold"], report["workload"], report["n_bad"]) == (None, {}, 0)
    assert report["MAE predicted"] == pytest.approx(0.14)
    assert "[[bad=0.7]] adds" in quality_text(cases, None)


def test_what_cases_are_ordered_by():
    rows = quality_of({"1": ([0.9, 0.6, NAN, NAN], [1] * 4)}, entropy=[0.1, 0.2, 0.3, NAN])
    scores = confidence_scores(rows)
    assert list(scores) == ["predicted Dice", "entropy"]
    np.testing.assert_array_equal(scores["predicted Dice"], [0.9, 0.6, NAN, NAN])
    np.testing.assert_allclose(scores["entropy"], [-0.1, -0.2, -0.3, NAN])
    assert scores["entropy"].index.tolist() == [f"case_{i}" for i in range(4)]


def test_cases_of_several_folds_are_ordered_by_their_agreement():
    rows = quality_of({"1": ([0.9, 0.6, NAN, NAN], [1] * 4)})
    scores = confidence_scores(rows.assign(members_dice=[0.7, NAN, 0.8, 0.9]))
    np.testing.assert_array_equal(scores["folds"], [0.7, NAN, 0.8, 0.9])


@pytest.mark.parametrize(
    ("true", "predicted", "rho"),
    [
        # ranks 4 1 2 3 and 4 2 1 3: 1 - 6 (1 + 1) / (4 * 15)
        ([0.9, 0.1, 0.5, 0.7], [3, 2, 1, 2.5], 0.8),
        ([0.9, 0.1, 0.5], [1, NAN, 2], NAN),
        ([0.9, 0.1, 0.5], [1, 1, 1], NAN),
    ],
)
def test_rank_correlation_of_what_is_known(true, predicted, rho):
    report = quality_report(quality_of({"1": (predicted, true)}), None)
    assert report["rho"] == pytest.approx(rho, nan_ok=True)


def test_workload_by_hand():
    true = [0.9, 0.3, 0.8, 0.4, 0.95, 0.2, 0.85, 0.9, 0.92, 0.88]  # three bad ones
    # finds 0.3, then misses, then finds 0.4
    confidence = [0.9, 0.1, 0.2, 0.3, 0.95, 0.8, 0.85, 0.9, 0.92, 0.88]
    looks = workload(confidence, np.array(true) - 0.7)
    assert [look["n_cases"] for look in looks] == [1, 1, 2, 3, 5]
    assert [look["caught"] for look in looks] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 2 / 3, 1])


def test_a_case_without_a_score_is_looked_at_first():
    assert workload([0.9, NAN, 0.8], [0.4, -0.4, 0.4])[0]["caught"] == 1


def test_of_no_bad_case_no_share_is_caught():
    assert math.isnan(workload([0.9], [0.4])[0]["caught"])


def test_tied_cases_are_found_on_average_over_their_orders():
    assert workload([0.5] * 4, [-0.4, 0.4, 0.4, 0.4])[-1]["caught"] == pytest.approx(0.5)
