"""Fits calibration maps by L-BFGS-B: mean negative log likelihood of the cases, with a ridge towards a centre.

The voxels where the network chose label c see the coefficients of c alone: with u' = A_c f (f the log-odds u of
:mod:`~nnunet_nacl.calibration.log_odds_map`, v and 1), u'_0 = 0, p = softmax(u') and y the true class the loss of a
voxel is log sum exp u' - u'_y, a convex function of A_c: one multinomial logistic regression for each label. A region
is a problem in two classes, and the loss is the mean over regions. Where slope and offsets are those of every label
there is one problem over all voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from nnunet_nacl.calibration.log_odds_map import LogOddsMap, clipped, is_certain, log_loss, probabilities, with_total

AFFINE_FORMS = ("temperature", "shift")
"""One slope; one slope and an offset per structure: for all labels."""
FORMS = (*AFFINE_FORMS, "conditional")
"""Then, for each label that the network chose, what :func:`fit_conditional` leaves free."""
RIDGE = 1e-6
"""Weight of ((t - 1)^2 + b^2) / 2 of affine forms beside the mean loss in nats: separable classes would diverge."""
SMALLEST_SLOPE = 0.01
LIKELY, OFTEN = 0.01, 0.001
"""A structure matters at a label where its probability is above the first in at least this share of the voxels."""
MOST_CROSSED = 6
"""Structures whose log-odds act on each other at a label: their number enters squared."""

_BLOCK = 1 << 13  # voxels at a time: they stay in the cache


@dataclass(frozen=True)
class LabelVoxels:
    """Voxels of one label, but for certain background, which no map changes.

    ``features`` are (m + 2, n) f, of clipped log-odds (of a region (3, n)), ``target`` the (n,) true class, or whether
    the voxel is in the region, ``weights`` (n,) float64; those of a case sum to at most 1.
    """

    features: Tensor
    target: Tensor
    weights: Tensor

    @property
    def odds(self) -> Tensor:
        """(m, n) clipped log-odds."""
        return self.features[:-2]


@dataclass(frozen=True)
class Voxels:
    """Voxels of one case.

    Attributes:
        log_odds: (m, N), see :func:`nnunet_nacl.calibration.log_odds_map.log_odds`; not clipped.
        label: (N,) most probable class 0..m, or (m, N) whether the network chose in (1) or out of (0) each region.
        target: The true class, or whether a voxel is in each region, in the shape of ``label``.
        weights: (N,) how many voxels of the case each stands for; None for one each.
    """

    log_odds: Tensor
    label: Tensor
    target: Tensor
    weights: Tensor | None = None

    @property
    def regions(self) -> bool:
        """Whether the structures are regions."""
        return self.target.ndim == 2

    @property
    def all_weights(self) -> Tensor:
        """(N,) float64."""
        return torch.ones(self.log_odds.shape[1]).double() if self.weights is None else self.weights.double()

    @cached_property
    def by_label(self) -> dict[tuple[int, int], LabelVoxels]:
        """By label and, of regions, by region (else 0): the voxels that a map changes."""
        inner, result = torch.nonzero(~is_certain(self.log_odds)).ravel(), {}
        weights = self.all_weights / self.all_weights.sum() / (len(self.target) if self.regions else 1)
        for place, (label, target) in enumerate(zip(torch.atleast_2d(self.label), torch.atleast_2d(self.target))):
            rows = slice(place, place + 1) if self.regions else slice(None)
            for value in label[inner].unique().tolist():
                here = inner[label[inner] == value]
                odds = clipped(self.log_odds[rows, here].float(), self.regions).double()
                features = torch.cat([with_total(odds), torch.ones_like(odds[:1])])
                result[int(value), place] = LabelVoxels(features, target[here].long(), weights[here])
        return result

    @cached_property
    def certain_loss(self) -> float:
        """What the voxels that no map changes add to the mean loss of the case."""
        certain = is_certain(self.log_odds)
        odds, target = self.log_odds[:, certain].double(), self.target[..., certain].long()
        if self.regions:
            losses = (torch.nn.functional.softplus(odds) - target * odds).mean(0)
        else:
            losses = log_loss(torch.zeros_like(odds[0]), odds, target)
        return float(losses @ self.all_weights[certain] / self.all_weights.sum())


def voxels_by_label(cases: Sequence[Voxels]) -> Iterator[tuple[int, int, LabelVoxels]]:
    """Label, region (0 of classes) and the voxels of all cases that have both, in order."""
    for label, place in sorted(set().union(*(case.by_label for case in cases))):
        tables = [vars(case.by_label[label, place]) for case in cases if (label, place) in case.by_label]
        yield label, place, LabelVoxels(*(torch.cat([table[name] for table in tables], -1) for name in tables[0]))


def structures_in_truth(cases: Iterable[Voxels]) -> np.ndarray:
    """(m,) whether a structure is in the truth of any case."""
    is_true = (
        c.target.any(1).numpy() if c.regions else np.isin(1 + np.arange(len(c.log_odds)), c.target) for c in cases
    )
    return np.any(list(is_true), axis=0)


def fit_affine(cases: Sequence[Voxels], form: str) -> LogOddsMap:
    """Fit one map for all labels, of a form among ``AFFINE_FORMS``; all cases have one weight.

    The offset of a structure that no truth has stays 0: cases without it do not tell how probable it is elsewhere.
    """
    regions, num, models = cases[0].regions, len(cases[0].log_odds), []
    offsets = np.where(structures_in_truth(cases) & (form == "shift"), np.arange(1, 1 + num), -1)
    index = np.full((1 + num, num + 1), -1)  # of the change of the slope, and of the offsets
    index[1:] = np.column_stack([np.where(np.eye(num, dtype=bool), 0, -1), offsets])
    for _, place, voxels in voxels_by_label(cases):
        features = torch.cat([voxels.odds, voxels.features[-1:]])
        base = torch.cat([torch.zeros_like(voxels.odds[:1]), voxels.odds])
        table = np.array([[-1, -1], [0, offsets[place]]]) if regions else index
        models.append(LinearLogits(features, base, voxels.target, voxels.weights, table))
    lowest = np.append(SMALLEST_SLOPE - 1, np.full(num, -np.inf))
    change = minimise(models, lowest, RIDGE, len(cases))
    return LogOddsMap(np.full((1, num), 1 + change[0]), change[None, 1:], regions)


def fit_conditional(cases: Sequence[Voxels], centre: LogOddsMap, ridge: float) -> LogOddsMap:
    """Fit a map by label, all cases with one weight: minus log likelihood + ridge / 2 |coefficients - centre's|^2.

    At the voxels of label c each structure that matters there (``LIKELY``, ``OFTEN``) has a slope a_ckk, g_ck and b_ck
    of its own; the ``MOST_CROSSED`` with the largest mean probability act on each other by a_ckj. All other
    coefficients stay as the centre has them, and so do labels that no case has, and structures that no truth has: cases
    without them do not tell how probable they are where they can be. Of a region, in or out: a_cr, g_cr and b_cr, with
    the ridge on the coefficients of log p and -log(1 - p), which are a and a + g. The ridge stands beside the mean loss
    in nats.
    """
    regions, rows = cases[0].regions, centre.coefficients()
    in_truth = structures_in_truth(cases)
    for label, place, voxels in voxels_by_label(cases):
        probs, weights = probabilities(voxels.odds, False)[1:], voxels.weights / voxels.weights.sum()
        share, mean = (((probs > LIKELY).double() @ weights).numpy(), (probs @ weights).numpy())
        matter = np.flatnonzero((share >= OFTEN) & (in_truth[place] if regions else in_truth))
        if not len(matter):
            continue
        base = logits_of(rows, voxels, label, place if regions else None)
        if regions:
            model, lowest = region_model(voxels, base, rows[label, place])
        else:
            free = np.zeros(rows.shape[1:], bool)
            free[matter, matter] = free[matter, -2:] = True
            crossed = sorted(matter, key=lambda k: -mean[k])[:MOST_CROSSED]
            free[np.ix_(crossed, crossed)] = True
            model, lowest = class_model(voxels, base, free, rows[label])
        change = minimise([model], lowest, ridge, len(cases))
        if regions:
            rows[label, place] += change - [0, change[0], 0]  # a log p - (a + g) log(1 - p) = a u + g v
        else:
            rows[label][free] += change
    return LogOddsMap(rows[..., :-1], rows[..., -1], regions)


def class_model(
    voxels: LabelVoxels, base: Tensor, free: np.ndarray, row: np.ndarray
) -> tuple[LinearLogits, np.ndarray]:
    """Voxels with one label, by changes of the (m, m + 2) coefficients that are free, and the lowest of these."""
    matter, kept = np.flatnonzero(free.any(1)), np.flatnonzero(~free.any(1))  # these are one constant beside background
    features = voxels.features[[*matter, -2, -1]] if len(kept) else voxels.features
    rest = torch.cat([torch.zeros_like(base[:1]), base[kept]]).logsumexp(0, keepdim=True)
    place = torch.zeros(1 + len(base)).long()
    place[1 + matter] = torch.arange(1, 1 + len(matter))
    index = np.full((1 + len(matter), len(features)), -1)
    index[1:][free[matter][:, [*matter.tolist(), -2, -1]]] = np.arange(free.sum())
    lowest = np.where(np.eye(*free.shape), np.minimum(SMALLEST_SLOPE - row, 0), -np.inf)[free]
    return LinearLogits(features, torch.cat([rest, base[matter]]), place[voxels.target], voxels.weights, index), lowest


def region_model(voxels: LabelVoxels, base: Tensor, row: np.ndarray) -> tuple[LinearLogits, np.ndarray]:
    """Voxels in or out of a region, by changes of the coefficients of log p, -log(1 - p) and 1; the lowest of these."""
    odds, total, ones = voxels.features
    features, index = torch.stack([odds - total, total, ones]), np.array([[-1, -1, -1], [0, 1, 2]])
    lowest = np.append(np.minimum(SMALLEST_SLOPE - np.cumsum(row[:2]), 0), -np.inf)
    both = torch.cat([torch.zeros_like(base), base])
    return LinearLogits(features, both, voxels.target, voxels.weights, index), lowest


def minimise(models: Sequence[LinearLogits], lowest: np.ndarray, ridge: float, number: int) -> np.ndarray:
    """(q,) parameters x, at least ``lowest``, at which the sum of losses over ``number`` plus ridge / 2 |x|^2 is least.

    L-BFGS-B begins at 0, in coordinates y of x = T y in which the Hessian there is about a unit matrix, which takes a
    quarter of the passes. What has a bound in x is proportional to a coordinate of its own, which has one, too.
    ValueError if it does not settle.
    """
    start, bounded = np.zeros(len(lowest)), np.isfinite(lowest)
    hessian = sum(model.hessian(start) for model in models) / number + ridge * np.eye(len(start))
    order = np.argsort(bounded, kind="stable")  # what has a bound comes last, where T is triangular
    turn = np.linalg.inv(np.linalg.cholesky(hessian[np.ix_(order, order)])).T
    scale, last = np.diag(turn).copy(), slice(np.count_nonzero(~bounded), None)
    turn[:, last] = turn[:, last] @ np.linalg.inv(turn[last, last]) * scale[last]
    turn = turn[np.argsort(order)]

    def objective(y: np.ndarray) -> tuple[float, np.ndarray]:
        x = turn @ y
        losses, gradients = zip(*(model.loss(x) for model in models))
        return sum(losses) / number + ridge * float(x @ x) / 2, (sum(gradients) / number + ridge * x) @ turn

    bounds = [(bound, None) for bound in lowest[order] / scale]
    options = {"ftol": 1e-10, "gtol": 1e-7}  # of the loss in nats
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    if found.status == 1 or not np.isfinite(found.fun):
        raise ValueError(f"the fit did not settle in {found.nit} steps; check the probabilities.")
    return np.maximum(turn @ found.x, lowest)


def case_loss(voxels: Voxels, calibration: LogOddsMap) -> float:
    """Mean negative log likelihood of a case under a map, in nats."""
    loss, rows = voxels.certain_loss, calibration.coefficients()
    for (label, place), of_label in voxels.by_label.items():
        logits = logits_of(rows, of_label, label, place if voxels.regions else None)
        loss += float(log_loss(torch.zeros_like(logits[0]), logits, of_label.target) @ of_label.weights)
    return loss


def logits_of(coefficients: np.ndarray, voxels: LabelVoxels, label: int, region: int | None) -> Tensor:
    """(m, n) u' of voxels with one label, by a map's coefficients; (1, n) of a region."""
    rows = coefficients[label] if region is None else coefficients[label, region : region + 1]
    return torch.from_numpy(rows) @ voxels.features


class LinearLogits:
    """Weighted voxels whose logits are linear in parameters x: u' = base + C f, with C_kj = x[index_kj].

    ``features`` are (q, n) f, ``base`` the (s, n) logits at x = 0, of which one row, of zeros or of what no parameter
    changes, is of the background. ``target`` is the (n,) row of the true class, ``index`` (s, q) which parameter each
    coefficient is, -1 where it is 0.
    """

    def __init__(self, features: Tensor, base: Tensor, target: Tensor, weights: Tensor, index: np.ndarray) -> None:
        self._tables, self._index = (features, base, weights), index
        true = torch.zeros_like(base).scatter_(0, target[None], weights[None])
        self._true_sums, self._true_base = true @ features.T, float((true * base).sum())

    def loss(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Sum over voxels of weight times -log p of the true class, and its gradient, of the shape of x."""
        coefficients = self._coefficients(x)
        loss = -self._true_base - float((coefficients * self._true_sums).sum())
        gradient = -self._true_sums
        for features, base, weights in self._blocks():
            odds = torch.addmm(base, coefficients, features)
            top = odds.amax(0)
            total = odds.sub_(top).exp_().sum(0)
            loss += float((total.log() + top) @ weights)
            gradient = gradient + odds.mul_(weights / total) @ features.T
        return loss, np.bincount(self._index.ravel() + 1, gradient.numpy().ravel(), len(x) + 1)[1:]

    def hessian(self, x: np.ndarray) -> np.ndarray:
        """(len(x), len(x)) second derivatives of the loss."""
        coefficients, (of, by) = self._coefficients(x), np.nonzero(self._index >= 0)
        same, found = torch.from_numpy(of[:, None] == of), torch.zeros(len(of), len(of)).double()
        for features, base, weights in self._blocks():
            along = torch.addmm(base, coefficients, features).softmax(0)[of] * features[by]
            weighted = along * weights
            found += (weighted @ features.T)[:, by] * same - weighted @ along.T
        result, number = np.zeros((len(x), len(x))), self._index[of, by]
        np.add.at(result, (number[:, None], number), found.numpy())
        return result

    def _coefficients(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(np.append(x, 0.0)[self._index])

    def _blocks(self) -> Iterator[tuple[Tensor, ...]]:
        return zip(*(table.split(_BLOCK, -1) for table in self._tables))
