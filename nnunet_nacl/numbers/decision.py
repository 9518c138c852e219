"""The segmentation with the highest expected Dice, found from the most probable labels by a fixed-point iteration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.binning import check_chunk
from nnunet_nacl.numbers.expected_dice import ExpectedOverlap, blocks_of, check_probs, region_table, sum_inside

MAX_ROUNDS = 20

_Rule = tuple[np.ndarray, np.ndarray]  # slope and offset of each channel's score


def decide_for_dice(
    probabilities: Tensor | np.ndarray,
    *,
    regions: Sequence[int | tuple[int, ...]] | None = None,
    region_labels: Sequence[int] | None = None,
    max_rounds: int = MAX_ROUNDS,
) -> np.ndarray:
    """The segmentation s with the largest sum over structures of the expected Dice E_k.

    E_k = 2 sum_{s = k} p_k / den_k with den_k = sum p_k + |s = k| (:mod:`~nnunet_nacl.numbers.expected_dice`). From the
    most probable labels on, each round gives every voxel the class with the largest (2 p_k - E_k) / den_k, 0 for the
    background, E_k and den_k being those of the round before: what the sum grows by, to first order. Such thresholds
    are RankSEG's (Dai and Li, JMLR 24, 2023; Nordström et al., 2023). The iteration can cycle, so it ends on a state
    that it has seen or after ``max_rounds``, and the best state counts: never worse than the most probable labels. A
    structure that these lack stays absent.

    Regions: each is decided by itself, in where p_r > E_r / 2; then they are painted in nnU-Net's order, and states are
    compared by the E_r of what is painted. Every voxel is decided, and the ignore label is never the result.

    Args:
        probabilities: (K, *spatial) of classes, background first, or (R, *spatial) of regions; any floating type.
        regions: The label value or values of each region; None for classes.
        region_labels: With regions, the label that each paints with: nnU-Net's ``regions_class_order``.
        max_rounds: Most rounds; 0 gives the most probable labels, the lower class of equals.

    Returns:
        (*spatial) label map, uint8, or uint16 for labels above 255. ValueError where shapes do not fit, there is no
        voxel, or probabilities are none.

    Example:
        >>> probs = np.array([[0.6, 0.6, 0.1, 0.9], [0.4, 0.4, 0.9, 0.1]])  # E_1 is 2 * 0.9 / (1.8 + 1) = 0.64
        >>> decide_for_dice(probs)  # so 0.4 is enough, which makes it 2 * 1.7 / (1.8 + 3) = 0.71
        array([1, 1, 1, 0], dtype=uint8)
    """
    probs = torch.as_tensor(probabilities).detach()
    check_probs(probs, regions)
    if len(regions or ()) != len(region_labels or ()):
        raise ValueError(f"give each region the label that it paints with, got {regions} and {region_labels}.")
    if not probs.numel():
        raise ValueError(f"probs must hold voxels, got {tuple(probs.shape)}.")
    paint = [int(label) for label in region_labels or ()]
    table = None if regions is None else region_table(regions, max(paint))
    expected = np.zeros(len(probs) - (regions is None))
    for _, chunk in blocks_of(probs):
        check_chunk(chunk, regions is not None)
        expected += chunk[-len(expected) :].sum(1, dtype=torch.float64).cpu().numpy()
    rule: _Rule = np.ones(len(probs)), np.full(len(probs), -0.5 if paint else 0.0)
    best, most, seen, there = rule, -1.0, set[bytes](), np.ones(len(expected), bool)
    for _ in range(max_rounds + 1):
        own, painted = _overlaps(probs, rule, expected, paint, table)
        there = there if seen else painted.chosen > 0
        total = float(np.nansum(painted.dice))
        if total > most and not painted.chosen[~there].any():  # nor does it appear under what another region gave up
            best, most = rule, total
        state = own.chosen.tobytes() + own.common.tobytes()  # decides about all further rounds
        if state in seen:
            break
        seen.add(state)
        rule = _next(own, (own.chosen > 0) & (painted.chosen > 0), bool(paint))
    result = np.empty(probs[0].numel(), np.uint8 if max(len(probs) - 1, *paint, 0) <= 255 else np.uint16)
    for part, chunk in blocks_of(probs):
        result[part] = _label(chunk, best, paint)[0].cpu().numpy()
    return result.reshape(probs.shape[1:])


def _next(own: ExpectedOverlap, present: np.ndarray, regions: bool) -> _Rule:
    """What the following round takes; an absent structure is kept out, which every voxel would gain by joining."""
    if regions:
        return np.ones(len(present)), np.where(present, -own.dice / 2, -np.inf)
    size = np.where(present, own.expected + own.chosen, np.inf)
    return np.append(0, 2 / size), np.append(0, np.where(present, -own.dice / size, -np.inf))


def _label(chunk: Tensor, rule: _Rule, paint: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(n,) labels: class of the largest score, or last region with one above 0; and (C, n) whether it is above 0."""
    slope, offset = (torch.as_tensor(values, dtype=chunk.dtype, device=chunk.device)[:, None] for values in rule)
    scores = chunk * slope + offset
    if not paint:
        return scores.max(0)[1], scores > 0
    labels = torch.zeros(chunk.shape[1], dtype=torch.int64, device=chunk.device)
    for inside, label in zip(scores > 0, paint):
        labels.masked_fill_(inside, label)
    return labels, scores > 0


def _overlaps(
    probs: Tensor, rule: _Rule, expected: np.ndarray, paint: Sequence[int], table: Tensor | None
) -> tuple[ExpectedOverlap, ExpectedOverlap]:
    """Sums of the structures that a rule leads to: of each region by itself, and of what is painted."""
    nothing = np.zeros_like(expected)
    own = painted = ExpectedOverlap(expected, np.zeros(len(expected), np.int64), nothing)
    for _, chunk in blocks_of(probs):
        labels, inside = _label(chunk, rule, paint)
        painted += ExpectedOverlap(nothing, *sum_inside(chunk, labels, table))
        if paint:
            sums = inside.sum(1), (chunk * inside).sum(1, dtype=torch.float64)
            own += ExpectedOverlap(nothing, *(each.cpu().numpy() for each in sums))
    return own if paint else painted, painted
