"""Negative log likelihood of cases under a map, with its exact first and second derivatives.

The voxels where the network chose label c see the coefficients of c alone: with u' = A_c f (f the log-odds u of
:mod:`~nnunet_nacl.calibration.calibration_map`, v and 1), u'_0 = 0, p = softmax(u') and y the true class the loss of a
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

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.case_voxels import Voxels, structures_there
from nnunet_nacl.calibration.log_odds import log_loss, probabilities, with_total

_BLOCK = 1 << 14  # voxels at a time: they stay in the cache


def case_loss(voxels: Voxels, calibration: CalibrationMap) -> float:
    """Mean negative log likelihood of a case under a map, in nats."""
    loss = voxels.certain_loss
    for (label, place), own in voxels.by_label.items():
        logits = _logits(calibration, own.odds, label, place if voxels.regions else None)
        loss += float(log_loss(torch.zeros_like(logits[0]), logits, own.target) @ own.weights)
    return loss


def _logits(calibration: CalibrationMap, odds: Tensor, label: int, region: int | None) -> Tensor:
    """(m, n) u' of voxels with one label; (1, n) of a region."""
    if region is None:
        return calibration.logits(odds, label)
    row = calibration.coefficients()[label, region]
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
        self._cases = [
            [(place if case.regions else None, own) for (_, place), own in case.by_label.items()] for case in cases
        ]

    def terms(self, change: np.ndarray, cases: Sequence[int] | None = None) -> Terms:
        """At ``start + change``; of some cases alone, whose mean it is then."""
        chosen = range(len(self._cases)) if cases is None else cases
        slope, shift = 1 + change[0], torch.from_numpy(change[1:]) if self.offsets else torch.zeros(self.num).double()
        loss, gradient = 0.0, torch.zeros(1 + self.num).double()
        hessian = torch.zeros(1 + self.num, 1 + self.num).double()
        for region, own in (piece for i in chosen for piece in self._cases[i]):
            where = slice(None) if region is None else slice(region, region + 1)
            places = torch.tensor([0, *range(1, 1 + self.num)[where]])
            for odds, target, weights in _blocks(own.odds, own.target, own.weights):
                logits = slope * odds + shift[where, None]
                value, probs = log_loss(torch.zeros_like(weights), logits, target), probabilities(logits, False)[1:]
                loss += float(value @ weights)
                residual = (probs - _one_hot(target, len(probs))) * weights
                gradient[places] += torch.cat([(residual * odds).sum()[None], residual.sum(1)])
                along = torch.cat([(probs * odds).sum(0, keepdim=True), probs])
                second = -(along * weights) @ along.T
                mixed, plain = (probs * odds) @ weights, probs @ weights
                second[0, 0] += ((probs * odds**2).sum(0)) @ weights
                second[0, 1:] += mixed
                second[1:, 0] += mixed
                second[1:, 1:] += plain.diag()
                hessian[places[:, None], places] += second
        # cases without a structure do not tell how probable it is where it can be: its offset stays
        gradient[self._unknown] = hessian[self._unknown] = hessian[:, self._unknown] = 0.0
        number, size = len(chosen), len(self.start)
        return Terms(loss / number, gradient[:size].numpy() / number, hessian[:size, :size].numpy() / number)


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
        centre: CalibrationMap,
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
            slopes = centre.coefficients()[label][self.structures][:, [*self.structures, -2, -1]]
        else:
            constant = torch.zeros_like(odds[0])
            self._features = torch.cat([odds - total, total, ones])
            self._rest, self._target = torch.zeros_like(odds[0]), target
            self.free, bounded = np.ones((1, 3), bool), np.array([[True, True, False]])
            slope, more, _ = centre.coefficients()[label, region]
            slopes = np.array([[slope, slope + more, 0]])
        self._base, self._constant = base, float(constant @ self._weights)
        self.start = np.zeros(int(self.free.sum()))
        self.lowest = np.where(bounded, np.minimum(smallest_slope - slopes, 0), -np.inf)[self.free]

    def terms(self, change: np.ndarray) -> Terms:
        """At the centre's coefficients plus ``change``; the mean over the cases."""
        of, by = (torch.from_numpy(index) for index in np.nonzero(self.free))
        loss, gradient = self._constant, torch.zeros(self.free.shape).double()
        hessian = torch.zeros(len(of), len(of)).double()
        rows = [torch.nonzero(of == k).ravel() for k in range(len(self.free))]
        for features, weights, probs, residual, losses in self._at(change):
            loss += float(losses @ weights)
            gradient += residual @ features.T
            along = probs[of] * features[by]
            hessian -= (along * weights) @ along.T
            for k, row in enumerate(rows):
                own = features[by[row]]
                hessian[row[:, None], row] += (own * (probs[k] * weights)) @ own.T
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
            logits = base + coefficients @ features
            probs = torch.cat([rest[None], logits]).softmax(0)[1:]
            residual = (probs - _one_hot(target, len(probs))) * weights
            yield features, weights, probs, residual, log_loss(rest, logits, target)

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


def _one_hot(target: Tensor, num: int) -> Tensor:
    """(num, n) of classes 1..num; 0 is none of them."""
    return (target == torch.arange(1, num + 1)[:, None]).double()
