"""How far the quality that the probabilities promise holds, over the cases of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnunet_nacl.calibration.estimate_report import compare_orders, coverage, mean_absolute_error, workload
from nnunet_nacl.cases.quality_block import CaseQuality

__all__ = ["ORDERS", "quality_report"]

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
ORDERS = ("expected Dice", "entropy", "confidence")


def quality_report(
    cases: Sequence[CaseQuality], threshold: float, predicted: Sequence[Mapping[str, np.ndarray]] | None = None
) -> dict[str, Any]:
    """The numbers of one method.

    Args:
        cases: Its cases.
        threshold: A case is bad where its lowest Dice of a structure is below.
        predicted: Predicted Dice, lower and upper ends of its intervals, of the same cases in the same order, by
            structure.

    Returns:
        ``MAE expected`` and, with ``predicted``, ``MAE predicted`` and ``coverage``: over structures of cases, where
        expected and true Dice are defined. ``orders``: ``AURC`` and ``rho`` by name of the order. ``workload``: rows
        by share, cases ordered by their lowest expected Dice, those without any structure first. ``n_cases`` and
        ``n_bad``: cases with a true Dice, and those below the threshold.
    """
    keys = list(cases[0].true)
    true = np.array([[case.true[key] for key in keys] for case in cases])
    expected = np.array([[case.expected[key] for key in keys] for case in cases])
    report: dict[str, Any] = {"MAE expected": mean_absolute_error(expected.ravel(), true.ravel())}
    if predicted is not None:
        estimate, low, high = (np.array([values[key] for key in keys]).T for values in predicted)
        report["MAE predicted"] = mean_absolute_error(estimate.ravel(), true.ravel())
        report["coverage"] = coverage(low.ravel(), high.ravel(), true.ravel())
    lowest = np.array([case.lowest_true for case in cases])
    trust = np.array([case.lowest_expected for case in cases])
    orders = (trust, -np.array([case.entropy for case in cases]), np.array([case.confidence for case in cases]))
    return report | {
        "orders": compare_orders(lowest, dict(zip(ORDERS, orders))),
        "workload": workload(trust, lowest, threshold, SHARES),
        "n_cases": int(np.count_nonzero(~np.isnan(lowest))),
        "n_bad": int(np.count_nonzero(lowest < threshold)),
    }
