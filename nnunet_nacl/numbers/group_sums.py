"""Sums of disjoint groups of voxels, of which every mask is a sum.

How exact: logarithms, and all that is counted one by one, are summed in double precision, and so is everything of small
cases. Of larger ones, the plain voxels' float32 distances are summed in float32 in blocks of 256, and the blocks' sums
in double precision. Roundings have random signs: metrics of all voxels but NLL change by some 1e-9 (see the tests),
those of the masks, which hold no plain voxel, not at all.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.binning import BinStats, bin_index
from nnunet_nacl.numbers.checks import SUM_TOLERANCE, where_true

BLOCK = 256  # so many numbers between 1/2 and 1 have a product that is far from the smallest double
_BATCH = 1 << 18  # probabilities that are counted one by one together: they stay in the cache
_SLACK = 1e-3  # how far a plain voxel's probabilities stay from the bin edges
_SMALLEST = float(torch.finfo(torch.float32).tiny)
# bits of a group's number: in the true foreground, in the predicted foreground, in each further mask
_TRUTH, _PREDICTED, _FIRST_EXTRA = 0, 1, 2


class GroupSums:
    """Sums of disjoint groups of voxels: every mask is a sum of groups.

    Args:
        extra: Names of further masks.
        num_classes: K classes with the background, or R regions.
        n_bins: Number of equal bins.
        regions: Whether the probabilities are those of regions.
        exact: Whether plain voxels are summed in double precision, too.
        device: Of the probabilities.
    """

    def __init__(
        self, extra: list[str], num_classes: int, n_bins: int, regions: bool, exact: bool, device: torch.device
    ) -> None:
        self._extra, self._n_bins, self._regions, self._exact = extra, n_bins, regions, exact
        single, groups = BinStats.zeros(num_classes, n_bins=n_bins, regions=regions), 1 << (_FIRST_EXTRA + len(extra))
        arrays = {field.name: torch.as_tensor(getattr(single, field.name), device=device) for field in fields(single)}
        self._sums = {name: array.double().repeat(groups, *[1] * array.ndim) for name, array in arrays.items()}

    def by_mask(self) -> dict[str, BinStats]:
        """The sums of all, the foreground, the predicted foreground, their union and the further masks."""
        groups = np.arange(len(self._sums["count"]))
        truth, predicted, *extra = ((groups >> bit & 1).astype(bool) for bit in range(_FIRST_EXTRA + len(self._extra)))
        chosen = {"all": groups >= 0, "foreground": truth, "predicted": predicted, "union": truth | predicted}
        chosen |= dict(zip(self._extra, extra))
        arrays = [sums.cpu().numpy() for sums in self._sums.values()]
        return {name: BinStats(*(array[which].sum(axis=0) for array in arrays)) for name, which in chosen.items()}

    def add(
        self,
        probs: Tensor,
        truth: Tensor,
        masks: list[Tensor],
        segmentation: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """Add voxels.

        Args:
            probs: (K, n) probabilities, float32 or float64.
            truth: (n,) labels, or (R, n) booleans.
            masks: (n,) booleans, one for each further mask.
            segmentation: Like the truth; None: the most probable labels.
            weights: (n,) how many each stands for; None: one.
        """
        if self._regions:
            foreground = truth.any(0)
            special = foreground | (probs.amax(0) > min(1 / self._n_bins, 0.5) - _SLACK)
        else:  # above this background probability all others are in the lowest bin, and lower, even if the sum is not 1
            foreground, sure = truth > 0, max(1 - 1 / self._n_bins, 0.5) + 2 * SUM_TOLERANCE + _SLACK
            special = foreground | ~(probs[0] > sure)
        if segmentation is not None:
            special |= segmentation.any(0) if self._regions else segmentation > 0
        for mask in masks:
            special |= mask
        where = where_true(special if weights is None else torch.ones_like(special))
        for place in where.split(max(1 << 10, _BATCH // len(probs))):
            group = foreground[place].long() << _TRUTH
            for i, mask in enumerate(masks):
                group |= mask[place].long() << (_FIRST_EXTRA + i)
            labels = None if segmentation is None else segmentation.index_select(-1, place)
            share = None if weights is None else weights[place]
            self._add_each(probs.index_select(1, place), truth.index_select(-1, place), labels, group, share)
        if len(where) < probs.shape[1]:
            self._add_plain(probs.double() if self._exact else probs, ~special)

    def _add_each(
        self, probs: Tensor, truth: Tensor, labels: Tensor | None, group: Tensor, weights: Tensor | None
    ) -> None:
        """Voxels one by one; ``group`` lacks the bit of the predicted foreground."""
        double, rows = probs.double(), torch.arange(len(probs), device=probs.device)[:, None]
        if self._regions:
            inside = probs > 0.5 if labels is None else labels.bool()
            foreground, right = inside.any(0), inside == truth
            confidence, own = torch.where(inside, double, 1 - double), torch.where(truth, double, 1 - double)
            brier = 2 * (1 - own).square()
        else:
            truth = truth.long()[None]
            if labels is not None:
                winner = labels.long()[None]
                confidence = probs.gather(0, winner)
            else:
                confidence, winner = probs.gather(0, truth), truth.clone()
                unsure = where_true(~(confidence > 0.5 + SUM_TOLERANCE))  # else no other class is more probable
                confidence[:, unsure], winner[:, unsure] = probs.index_select(1, unsure).max(0, keepdim=True)
            foreground, right, own = winner[0] != 0, winner == truth, double.gather(0, truth)
            brier = double.square().sum(0) + 1 - 2 * own

        def add(name: str, key: Tensor, values: Tensor | None = None, among: Tensor | None = None) -> None:
            if weights is not None:
                share = weights.expand(key.shape)
                values = share if values is None else values * share
            if among is not None:
                key, values = key[among], None if values is None else values[among]
            self._add_at(name, key, values)

        group = group | foreground.long() << _PREDICTED
        row = group * len(own) + rows[: len(own)]
        key = row * self._n_bins + bin_index(confidence, self._n_bins)
        add("count", key)
        add("confidence", key, confidence)
        add("correct", key, among=right)
        add("nll", row, -own.clamp_min(_SMALLEST).log())
        add("brier", row, brier)
        key = (group * len(probs) + rows) * self._n_bins + bin_index(probs, self._n_bins)
        add("class_count", key)
        add("class_confidence", key, double)
        if self._regions:
            add("class_positive", key, among=truth)
        else:
            add("class_positive", key.gather(0, truth))

    def _add_plain(self, probs: Tensor, plain: Tensor) -> None:
        """The voxels where ``plain`` is true, all in the group 0."""
        count, plain = int(plain.sum()), plain.to(probs.dtype)
        distance = torch.mul(probs, plain, out=torch.empty(probs.shape, dtype=probs.dtype, device=probs.device))
        if not self._regions:
            distance[0] = plain - distance[0]
        total, squares = torch.zeros(2, len(distance), dtype=torch.float64, device=distance.device)
        whole = distance.shape[1] // BLOCK * BLOCK
        for part in (distance[:, :whole].unflatten(1, (-1, BLOCK)), distance[:, None, whole:]):
            if part.numel():
                total += part.sum(-1).sum(-1, dtype=torch.float64)
                squares += torch.linalg.vector_norm(part, dim=-1).double().square_().sum(-1)
        sums = {name: values[0] for name, values in self._sums.items()}
        rows, first = len(sums["count"]), 0 if self._regions else 1
        for name in ("count", "correct"):
            sums[name][:, -1] += count
        sums["confidence"][:, -1] += count - total[:rows]
        sums["class_count"][first:, 0] += count
        sums["class_confidence"][first:, 0] += total[first:]
        for name, value in (("class_count", count), ("class_positive", count), ("class_confidence", count - total[0])):
            sums[name][:first, -1] += value  # the background's own probability lies in the top bin
        sums["nll"] -= torch.stack([_sum_of_logs(1 - row.double()) for row in distance[:rows]])
        sums["brier"] += 2 * squares if self._regions else squares.sum()

    def _add_at(self, name: str, key: Tensor, weights: Tensor | None = None) -> None:
        """sums.flat[key] += weights (or 1), duplicates included."""
        if key.numel():
            flat = self._sums[name].view(-1)
            weights = None if weights is None else weights.reshape(-1).double()
            flat += torch.bincount(key.view(-1), weights=weights, minlength=flat.numel())


def _sum_of_logs(values: Tensor) -> Tensor:
    """Sum of the logarithms of values between 1/2 and 1; few logarithms are taken, of products."""
    whole = len(values) // BLOCK * BLOCK
    return values[:whole].view(BLOCK, -1).prod(0).log_().sum() + values[whole:].log().sum()
