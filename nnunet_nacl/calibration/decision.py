"""The segmentation with the highest expected Dice or F-beta, found from the argmax by a fixed-point iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.calibration.decision_rules import ClassRule, RegionRule, above
from nnunet_nacl.metrics.checks import check_chunk, where_true
from nnunet_nacl.metrics.expected_dice import ExpectedOverlap, blocks_of, check_probs, sum_inside

MAX_ROUNDS = 20

Rule = ClassRule | RegionRule


@dataclass(frozen=True, eq=False)
class Decision:
    """A decided segmentation, beside the argmax. S structures: the classes without the background, or the regions.

    Attributes:
        segmentation: (*spatial) label map, uint8 or uint16; for regions painted in nnU-Net's order.
        argmax: (*spatial) the label map that it started from: the argmax, or p > 0.5, painted.
        before: Sums of the argmax, of which ``dice`` is the expected Dice and ``fbeta`` the expected F-beta.
        after: Sums of the decided segmentation.
        gained: (S,) int64 voxels of each structure that the argmax does not have.
        lost: (S,) int64 voxels of each structure in the argmax that it lost.
        n_changed: Voxels with another label than in the argmax.
        rounds: How often the rule was applied.
    """

    segmentation: np.ndarray
    argmax: np.ndarray
    before: ExpectedOverlap
    after: ExpectedOverlap
    gained: np.ndarray
    lost: np.ndarray
    n_changed: int
    rounds: int

    @property
    def removed(self) -> tuple[int, ...]:
        """Indices of the structures that the argmax has and the decided segmentation has not."""
        return tuple(np.flatnonzero((self.before.chosen > 0) & (self.after.chosen == 0)).tolist())

    @property
    def added(self) -> tuple[int, ...]:
        """Indices of the structures that the decided segmentation has and the argmax has not."""
        return tuple(np.flatnonzero((self.before.chosen == 0) & (self.after.chosen > 0)).tolist())


def decide(
    probs: Tensor | np.ndarray,
    *,
    regions: Sequence[int | tuple[int, ...]] | None = None,
    region_labels: Sequence[int] | None = None,
    max_rounds: int = MAX_ROUNDS,
    weights: Tensor | np.ndarray | None = None,
    beta: float = 1.0,
    present: Sequence[float] | np.ndarray | None = None,
) -> Decision:
    """The segmentation s with the largest sum over structures of the expected F-beta E_k; with beta 1, of Dice.

    E_k = (1 + beta^2) sum_{s = k} p_k / den_k with den_k = beta^2 sum p_k + |s = k|
    (:mod:`~nnunet_nacl.metrics.expected_dice`). From the argmax on, each round gives every voxel the class with the
    largest ((1 + beta^2) p_k - E_k) / den_k, 0 for the background, E_k and den_k being those of the round before. In
    the optimum a voxel belongs to k only where p_k > E_k / (1 + beta^2). For Dice that is E_k / 2: the sharper a
    structure, the nearer that is to the argmax's half. For beta 2 a fifth of E_k is enough, beta 0.5 wants four fifths.
    Such thresholds are RankSEG's (Dai and Li, JMLR 24, 2023; Nordström et al., 2023). The iteration can cycle, so it
    ends on a state that it has seen or after ``max_rounds``, and the best state counts, the argmax being one of them:
    the result is never worse than the argmax in the sum of the E_k. What is emptied stays empty (``removed`` lists it),
    and without ``present`` what is absent from the argmax stays absent.

    Where the probability P_k that structure k is in the scan is known, k is absent unless P_k E_k > 1 - P_k: the Dice
    of a missed or an invented structure is 0, and rightly nothing is as good as 1. The iteration then starts with the
    set of voxels that has the largest E_k, {p_k > E_k / (1 + beta^2)}, if that E_k passes, whether the argmax has k or
    not (``added``), and else without k. States are compared by the sum of P_k E_k, or 1 - P_k where k is absent, and of
    the E_k of the other structures. So a structure that is never the most probable class can be found.

    Regions: each is decided by itself, in where p_r > E_r / (1 + beta^2); then they are painted in nnU-Net's
    order, and states are compared by the E_r of the painted map.

    Every voxel is decided: at prediction nothing is ignored, and the ignore label is never the result.

    Works in blocks; beside ``probs`` only the two label maps need memory.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region probabilities; any
            floating type, any device.
        regions: The label value or values of each region; None for classes.
        region_labels: With regions, the label that each paints with: nnU-Net's ``regions_class_order``.
        max_rounds: Most rounds; 0 gives the argmax.
        weights: (*spatial) how many voxels each stands for, where ``probs`` are a sample of a case; the sums of the
            result are then estimates, while ``gained``, ``lost`` and ``n_changed`` count what is in the sample.
        beta: How many times as much recall weighs as precision: above 1 more is found, below 1 less is false.
        present: (S,) probability that each structure is in the scan; NaN, or None for all, where it is not known.

    Raises:
        ValueError: Shapes do not fit, probabilities are not probabilities, or ``beta`` is not a positive number.

    Example:
        >>> probs = np.array([[0.6, 0.6, 0.1, 0.9], [0.4, 0.4, 0.9, 0.1]])  # E_1 is 2 * 0.9 / (1.8 + 1) = 0.64
        >>> decide(probs).segmentation  # so 0.4 is enough, which makes it 2 * 1.7 / (1.8 + 3) = 0.71
        array([1, 1, 1, 0], dtype=uint8)
    """
    probs = torch.as_tensor(probs).detach()
    if (regions is None) != (not region_labels):
        raise ValueError("regions and region_labels belong together: give both or none.")
    check_probs(probs, regions)
    if not probs.numel():
        raise ValueError(f"probs must hold voxels, got {tuple(probs.shape)}.")
    if not 0 < beta < math.inf:
        raise ValueError(f"beta must be a positive number, got {beta!r}.")
    first: Rule = ClassRule.argmax(len(probs), beta)
    if regions is not None and region_labels:
        first = RegionRule.argmax(regions, region_labels, beta)
    weighted = None if weights is None else torch.as_tensor(weights, dtype=torch.float64).reshape(-1)
    expected = _sum_all(probs, regions is not None, weighted)
    chance = _check_present(present, len(expected))
    rule = first
    own, before = _apply(rule, probs, expected, weighted)
    painted = after = before
    best, seen, rounds, addable = first, {_state(own)}, 0, np.zeros(len(expected), bool)
    if not np.isnan(chance).all():
        known = ~np.isnan(chance)
        alone = _best_alone(probs, expected, known, weighted, beta)
        gone = _absent(alone, chance, beta)
        addable = known & ~gone & (before.chosen == 0)
        own, painted = (_with(known & ~gone, alone, _without(gone, one)) for one in (own, painted))
    while rounds < max_rounds:
        gone = _absent(painted, chance, beta)
        rule, rounds = rule.next(_without(gone, own), _without(gone, painted)), rounds + 1
        own, painted = _apply(rule, probs, expected, weighted)
        appeared = ((painted.chosen > 0) & (before.chosen == 0) & ~addable).any()  # under what another region gave up
        if _worth(painted, chance, beta) > _worth(after, chance, beta) and not appeared:
            best, after = rule, painted
        if _state(own) in seen:
            break
        seen.add(_state(own))
    return _compare(probs, first, best, before, after, rounds)


def _check_present(present: Sequence[float] | np.ndarray | None, size: int) -> np.ndarray:
    """(S,) probabilities; NaN where one is not known."""
    chance = np.full(size, math.nan) if present is None else np.asarray(present, np.float64)
    if chance.shape != (size,) or (chance < 0).any() or (chance > 1).any():
        raise ValueError(f"present must hold a probability, or NaN, for each of {size} structures, got {present!r}.")
    return chance


def _best_alone(
    probs: Tensor, expected: np.ndarray, wanted: np.ndarray, weights: Tensor | None, beta: float
) -> ExpectedOverlap:
    """The sums of the set of voxels with the largest E_k, of each structure as if there were no other.

    From all voxels on, each pass takes those that are above the threshold of the one before: Dinkelbach's method for a
    ratio, whose E_k grows until no set has a larger one.
    """
    square, first = beta * beta, len(probs) - len(expected)
    rows, threshold = np.flatnonzero(wanted), np.zeros(wanted.sum())
    while True:
        found = ExpectedOverlap(expected[rows], np.zeros(len(rows), np.int64), np.zeros(len(rows)))
        for part, chunk in blocks_of(probs):
            sizes = above(chunk[rows + first], threshold, None if weights is None else weights[part])[1]
            found += ExpectedOverlap(np.zeros(len(rows)), *sizes)
        higher = np.nan_to_num(found.fbeta(beta)) / (1 + square)
        if not (higher > threshold).any():
            break
        threshold = np.maximum(threshold, higher)
    chosen, common = np.zeros(len(expected), found.chosen.dtype), np.zeros(len(expected))
    chosen[rows], common[rows] = found.chosen, found.common
    return ExpectedOverlap(expected, chosen, common)


def _absent(sums: ExpectedOverlap, chance: np.ndarray, beta: float) -> np.ndarray:
    """(S,) structures that should not be there: P_k E_k <= 1 - P_k; none where P_k is not known."""
    return chance * np.nan_to_num(sums.fbeta(beta)) <= 1 - chance


def _without(gone: np.ndarray, sums: ExpectedOverlap) -> ExpectedOverlap:
    return ExpectedOverlap(sums.expected, np.where(gone, 0, sums.chosen), np.where(gone, 0.0, sums.common))


def _with(these: np.ndarray, alone: ExpectedOverlap, sums: ExpectedOverlap) -> ExpectedOverlap:
    pairs = (alone.chosen, sums.chosen), (alone.common, sums.common)
    return ExpectedOverlap(sums.expected, *(np.where(these, *pair) for pair in pairs))


def _worth(sums: ExpectedOverlap, chance: np.ndarray, beta: float) -> float:
    """What a state is judged by: the sum of the E_k, times P_k where that is known, or then 1 - P_k for nothing."""
    score = np.nan_to_num(sums.fbeta(beta))
    known = np.where(sums.chosen > 0, chance * score, 1 - chance)
    return float(np.where(np.isnan(chance), score, known).sum())


def _sum_all(probs: Tensor, regions: bool, weights: Tensor | None) -> np.ndarray:
    """(S,) sums of the probabilities, which no decision changes; checks them too."""
    total = torch.zeros(len(probs), dtype=torch.float64, device=probs.device)
    for part, chunk in blocks_of(probs):
        check_chunk(chunk, regions)
        total += (chunk if weights is None else chunk * weights[part]).sum(1, dtype=torch.float64)
    return total.cpu().numpy()[0 if regions else 1 :]


def _apply(
    rule: Rule, probs: Tensor, expected: np.ndarray, weights: Tensor | None
) -> tuple[ExpectedOverlap, ExpectedOverlap]:
    """Sums of the structures that a rule leads to: each by itself, and in the painted label map."""
    nothing = np.zeros_like(expected)
    own = painted = ExpectedOverlap(expected, np.zeros(len(expected), np.int64), nothing)
    for part, chunk in blocks_of(probs):
        here = None if weights is None else weights[part]
        labels, sums = rule.label(chunk, here)
        own += ExpectedOverlap(nothing, *sums)
        if isinstance(rule, RegionRule):  # later regions are painted over earlier ones; classes stay
            sums = sum_inside(chunk, labels, rule.table, here)
        painted += ExpectedOverlap(nothing, *sums)
    return own, painted


def _state(own: ExpectedOverlap) -> tuple[bytes, bytes]:
    """What decides about all further rounds."""
    return own.chosen.tobytes(), own.common.tobytes()


def _compare(
    probs: Tensor, first: Rule, best: Rule, before: ExpectedOverlap, after: ExpectedOverlap, rounds: int
) -> Decision:
    """The label maps, made at the end rather than kept through the rounds, and what differs."""
    table = first.table
    maps = np.empty((2, probs[0].numel()), np.uint8 if table.shape[1] <= 256 else np.uint16)
    gained, lost, n_changed = np.zeros(len(table), np.int64), np.zeros(len(table), np.int64), 0
    for part, chunk in blocks_of(probs):
        old, new = (rule.label(chunk)[0].cpu() for rule in (first, best))
        maps[0, part], maps[1, part] = old.numpy(), new.numpy()
        changed = where_true(old != new)
        was, is_now = table[:, old[changed]], table[:, new[changed]]
        gained += (is_now & ~was).sum(1).numpy()
        lost += (was & ~is_now).sum(1).numpy()
        n_changed += len(changed)
    argmax, segmentation = maps.reshape(2, *probs.shape[1:])
    return Decision(segmentation, argmax, before, after, gained, lost, n_changed, rounds)
