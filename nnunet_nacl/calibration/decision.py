"""The segmentation with the highest expected Dice or F-beta, found from the argmax by a fixed-point iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.calibration.decision_rules import ClassRule, RegionRule, Regions
from nnunet_nacl.metrics.checks import check_chunk, where_true
from nnunet_nacl.metrics.expected_dice import ExpectedOverlap, blocks_of, check_probs

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


def decide(
    probs: Tensor | np.ndarray,
    *,
    regions: Sequence[int | tuple[int, ...]] | None = None,
    region_labels: Sequence[int] | None = None,
    max_rounds: int = MAX_ROUNDS,
    weights: Tensor | np.ndarray | None = None,
    beta: float = 1.0,
) -> Decision:
    """The segmentation s with the largest sum over structures of the expected F-beta E_k; with beta 1, of Dice.

    E_k = (1 + beta^2) sum_{s = k} p_k / den_k with den_k = beta^2 sum p_k + |s = k|
    (:mod:`~nnunet_nacl.metrics.expected_dice`). From the argmax on, each round gives every voxel the class with the
    largest ((1 + beta^2) p_k - E_k) / den_k, 0 for the background, E_k and den_k being those of the round before. In
    the optimum a voxel belongs to k only where p_k > E_k / (1 + beta^2). For Dice that is E_k / 2: the sharper a
    structure, the nearer that is to the argmax's half. For beta 2 a fifth of E_k is enough, beta 0.5 wants four fifths.
    Such thresholds are RankSEG's (Dai and Li, JMLR 24, 2023; Nordström et al., 2023). The iteration can cycle, so it
    ends on a state that it has seen or after ``max_rounds``, and the best state counts, the argmax being one of them:
    the result is never worse than the argmax in the sum of the E_k. What is absent from the argmax stays absent, and
    what is emptied stays empty (``removed`` lists it).

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
        first = RegionRule.argmax(Regions(regions, region_labels), beta)
    weighted = None if weights is None else torch.as_tensor(weights, dtype=torch.float64).reshape(-1)
    expected = _sum_all(probs, regions is not None, weighted)
    rule = first
    own, before = _apply(rule, probs, expected, weighted)
    painted = after = before
    best, seen, rounds = first, {_state(own)}, 0
    while rounds < max_rounds:
        rule, rounds = rule.next(own, painted), rounds + 1
        own, painted = _apply(rule, probs, expected, weighted)
        appeared = ((painted.chosen > 0) & (before.chosen == 0)).any()  # what one region gives up may show another
        if np.nansum(painted.fbeta(beta)) > np.nansum(after.fbeta(beta)) and not appeared:
            best, after = rule, painted
        if _state(own) in seen:
            break
        seen.add(_state(own))
    return _compare(probs, first, best, before, after, rounds)


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
        painted += ExpectedOverlap(nothing, *rule.sum_painted(chunk, labels, sums, here))
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
