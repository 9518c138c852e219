"""Negative log likelihood of cases under a map, with its exact first and second derivatives.

The voxels where the network chose label c see the coefficients of c alone: with u' = A_c f (f the log-odds u of
:mod:`~nnunet_nacl.calibration.log_odds_map`, v and 1), u'_0 = 0, p = softmax(u') and y the true class the loss of a
voxel is log sum exp u' - u'_y, a convex function of A_c. So the whole is one multinomial logistic regression for each
label. A region is such a problem of its own, in against out, and the loss is the mean over regions, as the metrics have
it. Where slope and offsets are the same for every label there is one problem over all voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.calibration.case_voxels import Voxels, structures_there
from nnunet_nacl.calibration.log_odds import log_loss, with_total
from nnunet_nacl.calibration.log_odds_map import LogOddsMap

_BLOCK = 1 << 14  # voxels at a time: they stay in the cache


def case_loss(voxels: Voxels, calibration: LogOddsMap) -> float:
    """Mean negative log likelihood of a case under a map, in nats."""
    loss = voxels.certain_loss
    for (label, place), own in voxels.by_label.items():
        logits = _logits(calibration, own.odds, label, place if voxels.regions else None)
        loss += float(log_loss(torch.zeros_like(logits[0]), logits, own.target) @ own.weights)
    return loss


def _logits(calibration: LogOddsMap, odds: Tensor, label: int, region: int | None) -> Tensor:
    """(m, n) u' of voxels with one label; (1, n) of a region."""
    if region is None:
        return calibration.logits(odds, label)
    row = calibration.row(label)[region]
    return torch.from_numpy(row[:-1] @ np.stack([odds[0].numpy(), with_total(odds)[1].numpy()]) + row[-1])[None]


@dataclass(frozen=True)
class Terms:
    """Mean loss over cases in nats without what is constant, its (q,) gradient and its (q, q) Hessian."""

    loss: float
    gradient: np.ndarray
    hessian: np.ndarray


class AffineProblem:
    """A slope t, and offsets b_k, that are the same for every label: u'_k = t u_k + b_k; 0 where no truth has k.

    Attributes:
        start: (1 + m,) 1 and zeros, or (1,) without offsets: what the ridge pulls towards.
        lowest: Lower bound of each parameter, less ``start``.

    Args:
        cases: Each weighs the same.
        offsets: Whether there are offsets.
        smallest_slope: The slope's lower bound.
    """

    def __init__(self, cases: Sequence[Voxels], offsets: bool, smallest_slope: float) -> None:
        self.offsets, self.num = offsets, len(cases[0].log_odds)
        self.start = np.append(1.0, np.zeros(self.num if offsets else 0))
        self.lowest = np.append(smallest_slope - 1, np.full(len(self.start) - 1, -np.inf))
        self._unknown = np.append(False, ~structures_there(cases))
        self._cases = [[table for table, _ in case.tables] for case in cases]
        self._regions = cases[0].regions

    def terms(self, change: np.ndarray, cases: Sequence[int] | None = None) -> Terms:
        """At ``start + change``; of some cases alone, whose mean it is then."""
        chosen = range(len(self._cases)) if cases is None else cases
        slope, shift = 1 + change[0], torch.from_numpy(change[1:]) if self.offsets else torch.zeros(self.num).double()
        size = len(self.start)
        loss, gradient, hessian = 0.0, torch.zeros(size).double(), torch.zeros(size, size).double()
        for place, table in (piece for i in chosen for piece in enumerate(self._cases[i])):
            where = slice(place, place + 1) if self._regions else slice(None)
            places = torch.arange(1, 1 + self.num)[where] if self.offsets else torch.arange(0)
            for odds, target, weights in _blocks(table.odds, table.target, table.weights):
                losses, probs = _loss_and_probs(torch.zeros_like(weights), slope * odds + shift[where, None], target)
                loss += float(losses @ weights)
                mean = (probs * odds).sum(0)
                true = torch.cat([torch.zeros_like(odds[:1]), odds]).gather(0, target[None])[0]
                gradient[0] += (mean - true) @ weights
                hessian[0, 0] += ((probs * odds**2).sum(0) - mean**2) @ weights
                if self.offsets:
                    expected = probs * weights
                    sums = expected.sum(1)
                    gradient[places] += sums - torch.bincount(target, weights, len(odds) + 1)[1:]
                    mixed = (expected * (odds - mean)).sum(1)
                    hessian[0, places] += mixed
                    hessian[places, 0] += mixed
                    hessian[places[:, None], places] += sums.diag() - expected @ probs.T
        # cases without a structure do not tell how probable it is where it can be: its offset stays
        unknown = self._unknown[:size]
        gradient[unknown] = hessian[unknown] = hessian[:, unknown] = 0.0
        number = len(chosen)
        return Terms(loss / number, gradient.numpy() / number, hessian.numpy() / number)


class LabelProblem:
    """The coefficients of one label (and region) as changes of those of a centre: u' = A0 f + D f.

    Structures that do not matter there stay as the centre has them: they enter as one constant in the sum.

    Attributes:
        structures: (s,) those whose coefficients are free.
        free: (s, s + 2) which coefficients are: of s log-odds, v and 1; (1, 3) of a region's log p, -log(1 - p) and 1.
        lowest: (q,) lower bound of each change; -inf but for the slopes of a structure's own log-odds.

    Args:
        cases: Each weighs the same.
        label: Its label.
        region: The region, or None for classes.
        centre: What the ridge pulls towards.
        structures: Structures that matter.
        crossed: Those of them whose log-odds act on each other.
        smallest_slope: Lower bound of slopes.
    """

    def __init__(
        self,
        cases: Sequence[Voxels],
        label: int,
        region: int | None,
        centre: LogOddsMap,
        structures: Sequence[int],
        crossed: Sequence[int],
        smallest_slope: float,
    ) -> None:
        there = [(i, case.by_label.get((label, region or 0))) for i, case in enumerate(cases)]
        parts = [(i, own) for i, own in there if own is not None]
        self._region = region is not None
        self._number, self._case = len(cases), np.repeat([i for i, _ in parts], [len(own.target) for _, own in parts])
        odds, target, self._weights = (
            torch.cat([getattr(own, name) for _, own in parts], -1) for name in ("odds", "target", "weights")
        )
        self.structures = np.asarray(structures)
        base = _logits(centre, odds, label, region)
        ones, total = torch.ones_like(odds[:1]), with_total(odds)[-1:]
        if region is None:
            kept = np.setdiff1d(np.arange(len(odds)), self.structures)
            self._features = torch.cat([odds[self.structures], total, ones])
            self._rest = torch.cat([torch.zeros_like(base[:1]), base[kept]]).logsumexp(0)
            place = torch.zeros(len(odds) + 1).long()
            place[1 + self.structures] = torch.arange(1, len(self.structures) + 1)
            fixed = torch.cat([torch.zeros_like(base[:1]), base]).gather(0, target[None])[0]
            self._target, base = place[target], base[self.structures]
            constant = torch.where(self._target == 0, self._rest - fixed, 0.0)
            own = np.arange(len(self.structures))
            self.free = np.zeros((len(own), len(own) + 2), bool)
            self.free[own, own] = self.free[:, -2:] = True
            among = np.isin(self.structures, crossed)
            self.free[:, :-2] |= among[:, None] & among
            bounded = np.eye(len(own), len(own) + 2, dtype=bool)
            slopes = centre.row(label)[self.structures][:, [*self.structures, -2, -1]]
        else:
            constant = torch.zeros_like(odds[0])
            self._features = torch.cat([odds - total, total, ones])
            self._rest, self._target = torch.zeros_like(odds[0]), target
            self.free, bounded = np.ones((1, 3), bool), np.array([[True, True, False]])
            slope, more, _ = centre.row(label)[region]
            slopes = np.array([[slope, slope + more, 0]])
        self._base, self._constant = base, float(constant @ self._weights)
        self.start = np.zeros(int(self.free.sum()))
        self.lowest = np.where(bounded, np.minimum(smallest_slope - slopes, 0), -np.inf)[self.free]

    def terms(self, change: np.ndarray) -> Terms:
        """At the centre's coefficients plus ``change``; the mean over the cases."""
        of, by = (torch.from_numpy(index) for index in np.nonzero(self.free))
        loss, gradient = self._constant, torch.zeros(self.free.shape).double()
        hessian, same = torch.zeros(len(of), len(of)).double(), of[:, None] == of
        for features, weights, probs, residual, losses in self._at(change):
            loss += float(losses @ weights)
            gradient += residual @ features.T
            along = probs[of] * features[by]
            weighted = along * weights
            hessian += (weighted @ features.T)[:, by] * same - weighted @ along.T
        first = gradient.numpy()[self.free]
        return Terms(loss / self._number, first / self._number, hessian.numpy() / self._number)

    def gradients(self, change: np.ndarray) -> np.ndarray:
        """(cases, q) gradient of each case's mean loss."""
        of, by = np.nonzero(self.free)
        result, done = np.zeros((self._number, len(of))), 0
        for features, weights, _, residual, _ in self._at(change):
            here = slice(done, done := done + len(weights))
            np.add.at(result, self._case[here], (residual[of] * features[by]).T.numpy())
        return result

    def _at(self, change: np.ndarray) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
        """Features, weights, probabilities, their weighted distance to the truth and losses, in blocks of voxels."""
        coefficients = torch.zeros(self.free.shape).double()
        coefficients[torch.from_numpy(self.free)] = torch.from_numpy(change)
        for features, base, rest, target, weights in _blocks(
            self._features, self._base, self._rest, self._target, self._weights
        ):
            losses, probs = _loss_and_probs(rest, base + coefficients @ features, target)
            residual = (probs - (target == torch.arange(1, len(probs) + 1)[:, None]).double()) * weights
            yield features, weights, probs, residual, losses

    def to_rows(self, change: np.ndarray, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(s, s + 2) changes by s log-odds, v and 1, and their variances; of a region (1, 3) by u, v and 1.

        Args:
            change: (q,) of the free coefficients.
            covariance: (q, q) of these.
        """
        if self._region:
            turn = np.array([[1.0, 0, 0], [-1, 1, 0], [0, 0, 1]])  # log p = u - v
            change, covariance = turn @ change, turn @ covariance @ turn.T
        rows, variances = np.zeros(self.free.shape), np.zeros(self.free.shape)
        rows[self.free], variances[self.free] = change, np.diag(covariance)
        return rows, variances


def _blocks(*tables: Tensor) -> Iterator[list[Tensor]]:
    """Tables over the same voxels in pieces."""
    return map(list, zip(*(table.split(_BLOCK, -1) for table in tables)))


def _loss_and_probs(rest: Tensor, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) log loss of the true class, 0 being ``rest``, and (num, n) probabilities of classes 1..num."""
    every = torch.cat([rest[None], logits])
    total = every.logsumexp(0)
    return total - every.gather(0, target[None])[0], (logits - total).exp_()
