"""Negative log likelihood of one case under a map, with its exact first and second derivatives.

The voxels where the network chose label c see the slopes and offsets of c alone: with x = A_c u + b_c (A_c diagonal in
most forms; in the richest u has v, log(1 + sum_j exp u_j), as one row more), x_0 = 0, p = softmax(x) and y the true
class the loss of a voxel is log sum exp x - x_y, a convex function of (A_c, b_c). So the whole is one multinomial
logistic regression for each label. A region is such a problem of its own, in against out, and the loss is the mean over
regions, as the metrics have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.calibration.calibration_map import clipped, is_certain, with_total

_BLOCK = 1 << 16  # voxels at a time: they stay in the cache


@dataclass(frozen=True)
class _Problem:
    """The voxels of a case with one chosen label, and the structures whose log-odds matter there."""

    label: int
    structures: Tensor  # (s,) their places among the m
    odds: Tensor  # (s, n) clipped
    target: Tensor  # (n,) 0 for none of them, else 1 + the place among the s
    weights: Tensor  # (n,) float64


@dataclass(frozen=True)
class Voxels:
    """Voxels of one case.

    Attributes:
        log_odds: (m, N), see :func:`nnunet_nacl.calibration.calibration_map.log_odds`; not clipped.
        label: (N,) most probable class 0..m, or (m, N) whether the network chose in (1) or out of (0) each region.
        target: The true ones, alike.
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
    def num_labels(self) -> int:
        """Labels that a voxel can have: classes, or out and in."""
        return 2 if self.regions else len(self.log_odds) + 1

    @property
    def all_weights(self) -> Tensor:
        """(N,) float64."""
        return torch.ones(self.log_odds.shape[1]).double() if self.weights is None else self.weights.double()

    @property
    def labels_there(self) -> np.ndarray:
        """(P, m) whether voxels that a map changes have a label: of the region, or for all structures alike."""
        there = np.zeros((self.num_labels, len(self.log_odds)), dtype=bool)
        for problem in self._problems[0]:
            there[problem.label, problem.structures.numpy()] = True
        return there

    @cached_property
    def _problems(self) -> tuple[list[_Problem], float, float]:
        """By label; the loss of the voxels that no map changes, and the weight of all."""
        weights, certain, odds = self.all_weights, is_certain(self.log_odds), self.log_odds.float()
        fixed, problems = 0.0, []
        if certain.any():
            plain = odds[:, certain].double()
            logs = torch.cat([torch.zeros_like(plain[:1]), plain]).log_softmax(0)
            own = (
                torch.where(self.target[:, certain] > 0, plain, -plain).sigmoid().log().mean(0)
                if self.regions
                else logs.gather(0, self.target[None, certain].long())[0]
            )
            fixed = float(-own @ weights[certain])
        odds = clipped(odds[:, ~certain], self.regions)
        label, target, inner = self.label[..., ~certain], self.target[..., ~certain], weights[~certain]
        num = len(odds)
        for structures in torch.arange(num).split(1 if self.regions else num):
            chosen, true = (one[structures[0]] if self.regions else one for one in (label, target))
            share = inner / num if self.regions else inner
            for row in chosen.unique().tolist():
                here = chosen == row
                problems.append(
                    _Problem(int(row), structures, odds[structures][:, here], true[here].long(), share[here])
                )
        return problems, fixed, float(weights.sum())


def pool(cases: Sequence[Voxels]) -> Voxels:
    """Cases as one, each weighing the same: its terms are the means over the cases."""
    merged: dict[tuple[int, int], list[_Problem]] = {}
    fixed = 0.0
    for voxels in cases:
        problems, own, total = voxels._problems
        fixed += own / total
        for one in problems:
            share = replace(one, weights=one.weights / (total * len(cases)))
            merged.setdefault((one.label, int(one.structures[0])), []).append(share)
    pooled = [
        _Problem(
            label,
            parts[0].structures,
            torch.cat([one.odds for one in parts], 1),
            torch.cat([one.target for one in parts]),
            torch.cat([one.weights for one in parts]),
        )
        for (label, _), parts in merged.items()
    ]
    result = replace(cases[0])
    result.__dict__["_problems"] = pooled, fixed / len(cases), 1.0  # of the cached property
    return result


@dataclass(frozen=True)
class Terms:
    """Mean loss over a case's voxels in nats, its (P, q) gradient and (P, q, q) Hessian, a block for each label.

    The q parameters of a label are its m slopes and m offsets, or its m (m + 1) slopes, row by row, and m offsets.
    """

    loss: float
    gradient: np.ndarray
    hessian: np.ndarray


def case_loss(voxels: Voxels, slopes: np.ndarray, offsets: np.ndarray) -> float:
    """Mean negative log likelihood of a case, in nats; arguments as :func:`case_terms` has them."""
    problems, fixed, total = voxels._problems
    loss = sum(float(block.loss) for problem in problems for block in _blocks(problem, slopes, offsets))
    return (loss + fixed) / total


def case_terms(voxels: Voxels, slopes: np.ndarray, offsets: np.ndarray, *, curvature: bool = True) -> Terms:
    """Mean negative log likelihood of a case and its derivatives.

    Args:
        voxels: Of the case; there must be one.
        slopes: (P, m), P the labels that a voxel can have; or (P, m, m + 1), for classes.
        offsets: (P, m).
        curvature: Compute the Hessian, too; else it is 0.
    """
    problems, fixed, total = voxels._problems
    num, size = offsets.shape[1], int(np.prod(slopes.shape[1:])) + offsets.shape[1]
    gradient, hessian = np.zeros((len(slopes), size)), np.zeros((len(slopes), size, size))
    loss, derivatives = fixed, _of_matrix if slopes.ndim == 3 else _of_slopes
    for problem in problems:
        structures = problem.structures.numpy()
        place = np.arange(size) if slopes.ndim == 3 else np.concatenate([structures, num + structures])
        for block in _blocks(problem, slopes, offsets):
            loss += float(block.loss)
            first, second = derivatives(block, curvature)
            gradient[problem.label, place] += first.numpy()
            if second is not None:
                hessian[problem.label][np.ix_(place, place)] += second.numpy()
    return Terms(loss / total, gradient / total, hessian / total)


@dataclass(frozen=True)
class _Block:
    odds: Tensor
    probs: Tensor
    truth: Tensor
    weights: Tensor
    loss: Tensor


def _of_slopes(block: _Block, curvature: bool) -> tuple[Tensor, Tensor | None]:
    """Derivatives by the slopes and offsets of the structures."""
    weighted = block.probs * block.weights
    residual = weighted - block.truth * block.weights
    first = torch.cat([(residual * block.odds).sum(1), residual.sum(1)])
    if not curvature:
        return first, None
    mixed = weighted * block.odds
    slope, cross, offset = ((mixed * block.odds).sum(1).diag(), mixed.sum(1).diag(), weighted.sum(1).diag())
    diagonal = torch.cat([torch.cat([slope, cross], 1), torch.cat([cross, offset], 1)])
    features = torch.cat([block.probs * block.odds, block.probs])
    return first, diagonal - (features * block.weights) @ features.T


def _of_matrix(block: _Block, curvature: bool) -> tuple[Tensor, Tensor | None]:
    """Derivatives by all slopes, row by row, and the offsets."""
    num, size = len(block.probs), len(block.odds)
    features = torch.cat([block.odds, torch.ones_like(block.odds[:1])])
    weighted = block.probs * block.weights
    by_row = (weighted - block.truth * block.weights) @ features.T  # (m, size + 1)
    first = torch.cat([by_row[:, :size].reshape(-1), by_row[:, size]])
    if not curvature:
        return first, None
    second = first.new_zeros(len(first), len(first))
    places = [torch.cat([torch.arange(k * size, (k + 1) * size), torch.tensor([num * size + k])]) for k in range(num)]
    for k in range(num):
        for other in range(k + 1):
            weights = weighted[k] * (float(k == other) - block.probs[other])
            part = (features * weights) @ features.T
            second[places[k][:, None], places[other]] = part
            second[places[other][:, None], places[k]] = part.T
    return first, second


def _blocks(problem: _Problem, slopes: np.ndarray, offsets: np.ndarray) -> Iterator[_Block]:
    """A problem in pieces, in double precision: log-odds, probabilities, one-hot truth, weights, summed loss."""
    places = problem.structures.numpy()
    a, b = (torch.from_numpy(values[problem.label][places]) for values in (slopes, offsets))
    for start in range(0, problem.odds.shape[1], _BLOCK):
        part = slice(start, start + _BLOCK)
        odds, target, weights = problem.odds[:, part].double(), problem.target[part], problem.weights[part]
        if a.ndim == 2:
            odds = with_total(odds)
        x = (a @ odds if a.ndim == 2 else odds * a[:, None]) + b[:, None]
        top = x.amax(0).clamp_min_(0)
        shares = (x - top).exp_()
        total = shares.sum(0) + (-top).exp()
        truth = (target[None] == torch.arange(1, len(x) + 1)[:, None]).double()
        loss = (top + total.log() - (truth * x).sum(0)) @ weights
        yield _Block(odds, shares.div_(total), truth, weights, loss)
