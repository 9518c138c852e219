"""How much better the scans are that an order trusts most: risk-coverage curve and its area.

Scans are ordered by a confidence, and the most trusted ones are kept. Their share is the coverage,
the mean of their risks, as a rule 1 - Dice, the risk. The area under that curve (AURC; Geifman et
al., ICLR 2019) is small where an order trusts the right scans. Unlike an AUROC it needs no limit
below which a scan is bad.

Definition and unit are those of the benchmark of Zenk et al. (Medical Image Analysis 101, 2025,
arXiv 2406.03323) and its code: trapezoids between a coverage of 1/n and 1, in the unit of the risk,
not multiplied by anything. It differs where scans are tied: here the curve is its expectation over
all their orders, there it depends on the order of the scans.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import trapezoid


def selective_risks(confidence: ArrayLike, risk: ArrayLike) -> np.ndarray:
    """(n,) mean risk of the k most trusted scans, for k from 1 to n; their coverage is k / n.

    What is kept of scans of equal confidence has their mean risk: the mean over all their orders.

    Args:
        confidence: (m,) of each scan, larger is better. NaN, nothing known, is trusted least.
        risk: (m,) of each scan, larger is worse. Scans where it is NaN are left out; n are left.
    """
    risk_of_scan = np.asarray(risk, float)
    is_known = ~np.isnan(risk_of_scan)
    distrust = -np.asarray(confidence, float)[is_known]
    distrust[np.isnan(distrust)] = math.inf
    _, rank, num_tied = np.unique(distrust, return_inverse=True, return_counts=True)
    mean_of_tied = np.bincount(rank, risk_of_scan[is_known]) / num_tied
    in_order = np.repeat(mean_of_tied, num_tied)  # most trusted first
    return in_order.cumsum() / np.arange(1, len(in_order) + 1)


def aurc(confidence: ArrayLike, risk: ArrayLike) -> float:
    """Area under the risk-coverage curve; NaN with fewer than two scans.

    With r_k of :func:`selective_risks` it is the sum of (r_k + r_k+1) / 2n over k from 1 to n - 1.
    Where nothing orders the scans, as with one confidence for all, it is (n - 1) / n times their
    mean risk. The least is that of ``-risk`` as the confidence; what an order has above it is its
    E-AURC. Arguments are those of :func:`selective_risks`.
    """
    risks = selective_risks(confidence, risk)
    if len(risks) < 2:
        return math.nan
    return float(trapezoid(risks, dx=1 / len(risks)))
