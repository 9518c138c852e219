"""Where to cut: a constant added to each structure's logit before nnU-Net takes the largest.

A network trained with a Dice term has moved its probabilities until argmax is about the right
place to cut. One that was trained for probabilities has not, and the place that gives the highest
Dice is learned from held-out cases. With u_k the log-odds of structure k against the background
(:mod:`nnunet_nacl.estimators.log_odds`) and b_k its bias, the label of a voxel is

    classes:  argmax_k (u_k + b_k), with u_0 = b_0 = 0 for the background
    regions:  voxel in region r where u_r + b_r > 0

so that with one structure, and in each region, the cut is at the probability 1 / (1 + exp b).

Biases are chosen by the sample of voxels that every record keeps
(:mod:`nnunet_nacl.cases.sample`): voxel counts under a bias are those of the case, which are known,
plus the change that the sample estimates (difference estimator; Cochran, Sampling Techniques, 1977,
chapter 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

GRID: np.ndarray = np.arange(-160, 161) / 20
"""(G,) biases that are tried: -8 to 8."""
ROUNDS = 3
"""Of the coordinate ascent over structures."""


@dataclass(frozen=True, eq=False)
class SampledVoxels:
    """What a choice of biases needs of a case; n voxels stand for all, m is the number of
    structures.

    Attributes:
        odds: (m, n) log-odds.
        is_true: (m, n) whether a voxel is of each structure.
        weights: (n,) voxels of the case that each stands for.
        true: (m,) true voxels of the case.
        hits: (m,) those that the network's own labels hit.
        segmented: (m,) voxels of these labels.
        regions: Whether structures are regions, which do not compete.
    """

    odds: np.ndarray
    is_true: np.ndarray
    weights: np.ndarray
    true: np.ndarray
    hits: np.ndarray
    segmented: np.ndarray
    regions: bool

    @cached_property
    def _sampled_at_0(self) -> tuple[np.ndarray, np.ndarray]:
        """(m,) hits and segmented voxels of the network's own labels, as the sample has them."""
        labels = self._labels(np.zeros(len(self.odds)))
        return (labels * self.is_true) @ self.weights, labels @ self.weights

    def _labels(self, biases: np.ndarray) -> np.ndarray:
        """(m, n) whether a voxel is given to each structure."""
        biased = self.odds + biases[:, None]
        if self.regions:
            return biased > 0
        return (biased > 0) & (np.arange(len(biased))[:, None] == biased.argmax(0))

    def dice(self, biases: np.ndarray, structure: int) -> np.ndarray:
        """See :meth:`_find_dice`; kept where structures do not compete, since every part of a
        cross-fit asks for the same."""
        if not self.regions and len(self.odds) > 1:
            return self._find_dice(biases, structure)
        if structure not in self._kept:
            self._kept[structure] = self._find_dice(np.zeros(len(self.odds)), structure)
        return self._kept[structure]

    @cached_property
    def _kept(self) -> dict[int, np.ndarray]:
        return {}

    def _find_dice(self, biases: np.ndarray, structure: int) -> np.ndarray:
        """(m, G) Dice of each structure where ``structure`` has each bias of the grid, and the
        others theirs.

        NaN where truth and labels lack a structure.
        """
        rival, rival_odds = self._rivals(biases, structure)
        # the first bias of the grid with which a voxel is given to the structure
        first = np.searchsorted(GRID, rival_odds - self.odds[structure], side="right")
        hits = np.empty((len(self.odds), len(GRID)))
        segmented = np.empty_like(hits)
        for other in range(len(self.odds)):
            own = other == structure
            if own:
                weights = self.weights
            elif self.regions:
                weights = self.weights * (self.odds[other] + biases[other] > 0)
            else:
                weights = self.weights * (rival == other)
            of_label = _cumulative(first, weights)
            of_hits = _cumulative(first, weights * self.is_true[other])
            if own:
                segmented[other], hits[other] = of_label[:-1], of_hits[:-1]
            elif self.regions:
                segmented[other], hits[other] = of_label[-1], of_hits[-1]
            else:
                segmented[other] = of_label[-1] - of_label[:-1]
                hits[other] = of_hits[-1] - of_hits[:-1]
        return self._dice_of_counts(hits, segmented)

    def dice_of_shift(self, biases: np.ndarray) -> np.ndarray:
        """(m, G) Dice of each structure where each bias of the grid is added to all: the most
        probable structure stays, and how it competes with the background changes."""
        odds = self.odds + biases[:, None]
        first = np.searchsorted(GRID, -odds.max(0), side="right")
        weights = self.weights * (np.arange(len(odds))[:, None] == odds.argmax(0))
        segmented = [_cumulative(first, of_structure)[:-1] for of_structure in weights]
        hits = [_cumulative(first, of_structure)[:-1] for of_structure in weights * self.is_true]
        return self._dice_of_counts(np.stack(hits), np.stack(segmented))

    def _rivals(self, biases: np.ndarray, structure: int) -> tuple[np.ndarray, np.ndarray]:
        """(n,) which other structure is the most probable, -1 for the background; its odds."""
        n_voxels = self.odds.shape[1]
        if self.regions or len(self.odds) == 1:
            return np.full(n_voxels, -1), np.zeros(n_voxels)
        others = self.odds + biases[:, None]
        others[structure] = -np.inf
        rival = others.argmax(0)
        rival_odds = np.maximum(others.max(0), 0)
        return np.where(rival_odds > 0, rival, -1), rival_odds

    def _dice_of_counts(self, hits: np.ndarray, segmented: np.ndarray) -> np.ndarray:
        """(m, G) Dice of (m, G) sampled counts, corrected by what is known of the case."""
        hits_at_0, segmented_at_0 = self._sampled_at_0
        true = self.true[:, None]
        all_hits = np.clip(hits + (self.hits - hits_at_0)[:, None], 0, true)
        all_segmented = np.maximum(segmented + (self.segmented - segmented_at_0)[:, None], all_hits)
        # nothing of the sample is left: nothing of the case
        all_segmented = np.where(segmented > 0, all_segmented, 0)
        all_hits = np.where(segmented > 0, all_hits, 0)
        with np.errstate(invalid="ignore"):
            return 2 * all_hits / (all_segmented + true)


def _cumulative(first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(G + 1,) sums of the weights of voxels whose first bias is at most each of the grid; last,
    of all."""
    return np.bincount(first, weights, len(GRID) + 1).cumsum()


def choose_biases(
    cases: Sequence[SampledVoxels],
    structures: Sequence[int] | None = None,
    *,
    only_present: bool = False,
) -> np.ndarray:
    """(m,) biases with the highest mean Dice, by coordinate ascent; 0 where argmax is as good.

    The mean is nnU-Net's: over the cases where a structure's Dice is defined, an invented structure
    counting 0, then over structures. Classes compete, so the ascent also moves all candidates
    together, against the background.

    Args:
        cases: At least one.
        structures: Indices of those that may get a bias; None: all.
        only_present: Leave out cases whose truth lacks the structure.
    """
    candidates = list(range(len(cases[0].odds)) if structures is None else structures)
    is_left_out = np.stack([(case.true == 0) & only_present for case in cases])
    biases = np.zeros(len(cases[0].odds))

    def best(dice: Sequence[np.ndarray]) -> float:
        """The bias of the grid with the highest mean of (cases, m, G) Dice."""
        return GRID[_best(_nanmean(_nanmean(np.where(is_left_out[..., None], np.nan, dice))))]

    is_competing = not cases[0].regions and len(candidates) > 1
    for _ in range(ROUNDS if is_competing else 1):
        for structure in candidates:
            biases[structure] = best([case.dice(biases, structure) for case in cases])
        if is_competing and len(candidates) == len(biases):
            biases += best([case.dice_of_shift(biases) for case in cases])
    return biases


def _nanmean(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is defined; NaN without any."""
    is_defined = ~np.isnan(values)
    counts = is_defined.sum(0)
    sums = np.where(is_defined, values, 0).sum(0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _best(means: np.ndarray) -> int:
    """Index of the highest mean; of equal ones that of the bias nearest to 0, which is taken where
    no mean is defined, too."""
    means = np.nan_to_num(means, nan=-1)
    is_best = means >= means.max() - 1e-12
    return int(np.where(is_best, np.abs(GRID), np.inf).argmin())


def bias_of_threshold(threshold: float) -> float:
    """The bias that cuts at a probability of the structure against the background: log((1 - t) /
    t)."""
    return float(np.log1p(-threshold) - np.log(threshold))


def threshold_of_bias(bias: float) -> float:
    """The probability at which a bias cuts: 1 / (1 + exp b)."""
    return float(1 / (1 + np.exp(bias)))
