"""Fits calibration maps by L-BFGS-B: mean negative log likelihood of the cases, with a ridge
towards a prior map.

The voxels where the network chose label c see the coefficients of c alone, A_c: the slopes a_ckj
and g_ck and the offsets b_ck of :mod:`~nnunet_nacl.calibration.log_odds_map`. With u' = A_c f (f
the log-odds u of :mod:`~nnunet_nacl.calibration.log_odds`, v and 1), u'_0 = 0, p = softmax(u') and
y the true class the loss of a voxel is log sum exp u' - u'_y, a convex function of A_c: one
multinomial logistic regression for each label. A region is a problem in two classes, and the loss
is the mean over regions. Where slope and offsets are those of every label there is one problem over
all voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.calibration.linear_logits import LinearLogits, minimise
from nnunet_nacl.calibration.log_odds import log_loss, probabilities
from nnunet_nacl.calibration.log_odds_map import AffineMap, ConditionalMap, LogOddsMap
from nnunet_nacl.calibration.voxels import (
    LabelVoxels,
    Voxels,
    find_structures_in_truth,
    group_by_label,
)

AFFINE_FORMS = ("temperature", "shift")
"""One slope; one slope and an offset per structure: for all labels."""
FORMS = (*AFFINE_FORMS, "conditional")
"""Then, for each label that the network chose, what :func:`fit_conditional` leaves free."""
RIDGE = 1e-6
"""Weight of ((t - 1)^2 + b^2) / 2 of affine forms beside the mean loss in nats: separable classes
would diverge."""
SMALLEST_SLOPE = 0.01
LIKELY = 0.01
"""A structure matters at a label where its probability is above this ..."""
OFTEN = 0.001
"""... in at least this share of the voxels."""
MOST_CROSSED = 6
"""Structures whose log-odds act on each other at a label: their number enters squared."""


def fit_affine(cases: Sequence[Voxels], form: str) -> AffineMap:
    """Fits one map for all labels; all cases have one weight.

    The offset of a structure that no truth has stays 0: cases without it do not tell how probable
    it is elsewhere.

    Args:
        cases: Voxels of each case.
        form: One of ``AFFINE_FORMS``.
    """
    regions = cases[0].regions
    num_structures = len(cases[0].log_odds)
    # Parameter 0 is the change of the slope, 1 + k the offset of structure k; -1 is no parameter.
    offset_parameters = np.full(num_structures, -1)
    if form == "shift":
        in_truth = find_structures_in_truth(cases)
        offset_parameters[in_truth] = 1 + np.flatnonzero(in_truth)
    models = []
    for _, region, voxels in group_by_label(cases):
        # Logits are base + C f; index says which parameter each coefficient of C is.
        features = torch.cat([voxels.odds, voxels.features[-1:]])
        base = torch.cat([torch.zeros_like(voxels.odds[:1]), voxels.odds])
        index = np.full((len(base), len(features)), -1)
        rows = 1 + np.arange(len(voxels.odds))
        index[rows, rows - 1] = 0
        index[rows, -1] = offset_parameters[region] if regions else offset_parameters
        models.append(LinearLogits(features, base, voxels.target, voxels.weights, index))
    lowest = np.append(SMALLEST_SLOPE - 1, np.full(num_structures, -np.inf))
    # Of a temperature, and of structures that no truth has, no coefficient is parameter 1 + k: the
    # ridge keeps it at 0.
    change = minimise(models, lowest, RIDGE, len(cases))
    return AffineMap(np.full(num_structures, 1 + change[0]), change[1:], regions)


def fit_conditional(cases: Sequence[Voxels], prior_map: LogOddsMap, ridge: float) -> ConditionalMap:
    """Fits a map by label: minus log likelihood + ridge / 2 |coefficients - those of the prior
    map|^2.

    All cases have one weight. At the voxels of label c each structure that matters there
    (``LIKELY``, ``OFTEN``) has a slope a_ckk, g_ck and b_ck of its own; the ``MOST_CROSSED`` with
    the largest mean probability act on each other by a_ckj. All other coefficients stay as the
    prior map has them, and so do labels that no case has, and structures that no truth has: cases
    without them do not tell how probable they are where they can be. Of a region, in or out: a_cr,
    g_cr and b_cr, with the ridge on the coefficients of log p and -log(1 - p), which are a and a +
    g.

    Args:
        cases: Voxels of each case.
        prior_map: What the fit is shrunk towards.
        ridge: Strength, beside the mean loss in nats.
    """
    regions = cases[0].regions
    in_truth = find_structures_in_truth(cases)
    coefficients = prior_map.coefficients()  # a new array, which is changed in place below
    for label, region, voxels in group_by_label(cases):
        # As of classes also for a region, which is here one class against the outside.
        probs = probabilities(voxels.odds, regions=False)[1:]
        weights = voxels.weights / voxels.weights.sum()
        share_of_likely = ((probs > LIKELY).double() @ weights).numpy()
        is_in_truth = in_truth[region] if regions else in_truth
        matters = (share_of_likely >= OFTEN) & is_in_truth
        if not matters.any():
            continue
        if regions:
            _fit_region(coefficients[label, region], voxels, ridge, len(cases))
        else:
            mean_probability = (probs @ weights).numpy()
            is_free = _choose_free(np.flatnonzero(matters), mean_probability)
            _fit_class(coefficients[label], is_free, voxels, ridge, len(cases))
    return ConditionalMap(coefficients[..., :-1], coefficients[..., -1], regions)


def _choose_free(structures: np.ndarray, mean_probability: np.ndarray) -> np.ndarray:
    """(m, m + 2) which coefficients of a label are fitted, by the structures that matter there."""
    num_structures = len(mean_probability)
    is_free = np.zeros((num_structures, num_structures + 2), bool)
    is_free[structures, structures] = True
    is_free[structures, -2:] = True
    most_probable_first = structures[np.argsort(-mean_probability[structures], kind="stable")]
    crossed = most_probable_first[:MOST_CROSSED]
    is_free[np.ix_(crossed, crossed)] = True
    return is_free


def _fit_class(
    row: np.ndarray, is_free: np.ndarray, voxels: LabelVoxels, ridge: float, num_cases: int
) -> None:
    """Fits the free ones of the (m, m + 2) coefficients of a label, in place."""
    base = apply_coefficients(row, voxels)
    fitted_structures = np.flatnonzero(is_free.any(1))
    fixed_structures = np.flatnonzero(~is_free.any(1))
    # Structures without a free coefficient share row 0 with the background, by logsumexp, and so do
    # the voxels where they are true. That changes the loss by a constant.
    outside = torch.cat([torch.zeros_like(base[:1]), base[fixed_structures]])
    background = outside.logsumexp(0, keepdim=True)
    columns = [*fitted_structures.tolist(), -2, -1]
    features = voxels.features[columns] if len(fixed_structures) else voxels.features
    row_of_class = torch.zeros(1 + len(base)).long()
    row_of_class[1 + fitted_structures] = torch.arange(1, 1 + len(fitted_structures))
    # Parameters are numbered row by row, the order of `lowest[is_free]` and `row[is_free]`, too.
    index = np.full((1 + len(fitted_structures), len(features)), -1)
    index[1:][is_free[fitted_structures][:, columns]] = np.arange(is_free.sum())
    model = LinearLogits(
        features,
        torch.cat([background, base[fitted_structures]]),
        row_of_class[voxels.target],
        voxels.weights,
        index,
    )
    is_own_slope = np.eye(*is_free.shape) > 0
    # A change of 0, where the fit starts, is allowed even if the prior slope is below the least.
    lowest = np.where(is_own_slope, np.minimum(SMALLEST_SLOPE - row, 0), -np.inf)
    row[is_free] += minimise([model], lowest[is_free], ridge, num_cases)


def _fit_region(row: np.ndarray, voxels: LabelVoxels, ridge: float, num_cases: int) -> None:
    """Fits the (3,) coefficients a, g and b of a region, in or out, in place."""
    base = apply_coefficients(row[None], voxels)
    odds, total, ones = voxels.features
    features = torch.stack([odds - total, total, ones])  # log p, -log(1 - p), 1
    index = np.array([[-1, -1, -1], [0, 1, 2]])
    both = torch.cat([torch.zeros_like(base), base])
    model = LinearLogits(features, both, voxels.target, voxels.weights, index)
    # Of log p the coefficient is a, of -log(1 - p) it is a + g; both stay above 0. As for classes,
    # a change of 0 is allowed.
    lowest = np.append(np.minimum(SMALLEST_SLOPE - np.cumsum(row[:2]), 0), -np.inf)
    change = minimise([model], lowest, ridge, num_cases)
    row += change - [0, change[0], 0]  # a log p - (a + g) log(1 - p) = a u + g v


def case_loss(voxels: Voxels, calibration: LogOddsMap) -> float:
    """Mean negative log likelihood of a case under a map, in nats."""
    loss = voxels.certain_loss
    coefficients = calibration.coefficients()
    for (label, region), label_voxels in voxels.by_label.items():
        rows = coefficients[label]
        if voxels.regions:
            rows = rows[region : region + 1]
        logits = apply_coefficients(rows, label_voxels)
        losses = log_loss(torch.zeros_like(logits[0]), logits, label_voxels.target)
        loss += float(losses @ label_voxels.weights)
    return loss


def apply_coefficients(rows: np.ndarray, voxels: LabelVoxels) -> Tensor:
    """(m, n) u' of voxels with one label, by the (m, m + 2) coefficients of that label; (1, n) of a
    region."""
    return torch.from_numpy(rows) @ voxels.features
