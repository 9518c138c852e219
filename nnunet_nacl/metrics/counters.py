"""Count chunks of voxels: the plain ones by sums over everything, the special ones one by one.

A voxel is plain if it is labelled background, lies in no mask, and its probabilities lie in bins that are known without
looking: the background's in the top bin, all others in the lowest (a region's in the lowest). Special voxels are
gathered over several chunks, so that the price of an operation is paid for many of them. All sums are accumulated in
double precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import bin_index
from nnunet_nacl.metrics.checks import SUM_TOLERANCE
from nnunet_nacl.metrics.groups import PREDICTED, GroupSums, add_at, group_numbers

__all__ = ["SMALLEST", "ClassCounter", "RegionCounter", "background_threshold", "region_threshold"]

_SLACK = 1e-3  # how far a plain voxel's probabilities stay from the bin edges
SMALLEST = float(torch.finfo(torch.float32).tiny)


def background_threshold(n_bins: int) -> float:
    """Above this background probability all others lie in the lowest bin, and are lower, even if the sum is not 1."""
    return max(1 - 1 / n_bins, 0.5) + 2 * SUM_TOLERANCE + _SLACK


def region_threshold(n_bins: int) -> float:
    """Below this a region's probability lies in the lowest bin, and predicts "out"."""
    return min(1 / n_bins, 0.5) - _SLACK


class _Counter:
    """Common part: what is pending, and the sums of the plain voxels.

    Args:
        sums: Where the result goes.
        batch_voxels: How many special voxels are gathered before they are counted.
    """

    def __init__(self, sums: GroupSums, batch_voxels: int) -> None:
        self.sums, self._batch = sums, batch_voxels
        self.num_groups, self.num_channels, self.n_bins = sums.class_count.shape
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._num_pending = 0
        self._double = torch.empty(0, dtype=torch.float64, device=sums.nll.device)
        self._regions = len(sums.nll[0]) > 1 or isinstance(self, RegionCounter)
        self.num_plain = 0
        self.total = torch.zeros(self.num_channels, dtype=torch.float64, device=sums.nll.device)
        self.brier, self.log = torch.zeros_like(sums.brier[0]), torch.zeros_like(sums.nll[0])

    def _plain_only(self, values: Tensor, special: Tensor) -> Tensor:
        """(K, n) values in double precision, 0 at the special voxels; valid until the next call."""
        if values.shape[1] != self._double.shape[-1]:
            self._double = torch.empty(values.shape, dtype=torch.float64, device=values.device)
        self._double.copy_(values)
        if not self._regions:
            torch.sub(1, self._double[0], out=self._double[0])
        return self._double.index_fill_(1, special, 0)

    def add(self, chunk: Tensor, truth: Tensor, masks: list[Tensor]) -> None:
        """Count (K, n) probabilities with their truth and masks."""
        raise NotImplementedError

    def _put(self, probs: Tensor, truth: Tensor, group: Tensor) -> None:
        self._pending.append((probs, truth, group))
        self._num_pending += probs.shape[1]
        if self._num_pending >= self._batch:
            self._flush()

    def _flush(self) -> None:
        if self._num_pending:
            self._count(*(torch.cat(parts, -1) for parts in zip(*self._pending)))
        self._pending, self._num_pending = [], 0

    def _count(self, probs: Tensor, truth: Tensor, group: Tensor) -> None:
        raise NotImplementedError


class ClassCounter(_Counter):
    """Counts softmax classes."""

    def add(self, chunk: Tensor, truth: Tensor, masks: list[Tensor]) -> None:
        group = group_numbers(truth != 0, masks)
        background = chunk[0]
        plain = background > background_threshold(self.n_bins)
        plain &= group == 0
        special = (~plain).nonzero().squeeze(1)
        self.num_plain += chunk.shape[1] - len(special)
        distance = self._plain_only(chunk, special)  # from the truth: the background's row becomes 1 less itself
        self.total += distance.sum(1)
        self.brier += torch.dot(distance.view(-1), distance.view(-1))
        self.log += _sum_of_logs(1 - distance[0])
        if len(special):
            self._put(chunk.index_select(1, special), truth.index_select(0, special), group.index_select(0, special))

    def _count(self, probs: Tensor, truth: Tensor, group: Tensor) -> None:
        sums, n_bins = self.sums, self.n_bins
        label = truth.long()
        confidence, predicted = probs.max(0)
        group = group.long() | (predicted != 0).long() << PREDICTED
        own = probs.gather(0, label[None])[0]
        key = group * n_bins + bin_index(confidence, n_bins)
        add_at(sums.count, key)
        add_at(sums.confidence, key, confidence.double())
        add_at(sums.correct, key[predicted == label])
        double = probs.double()
        sums.add_class_bins(probs, double, group)
        add_at(sums.class_positive, (group * self.num_channels + label) * n_bins + bin_index(own, n_bins))
        own = own.double()
        squares = double.square_().sum(0)  # in place: the last use of it
        add_at(sums.nll, group, -own.clamp_min(SMALLEST).log())
        add_at(sums.brier, group, squares - 2 * own + 1)

    def finish(self) -> None:
        """Count what is pending, and the plain voxels."""
        self._flush()
        if not self.num_plain:
            return
        sums, count, total = self.sums, self.num_plain, self.total
        total[0] = count - total[0]
        sums.count[0, 0, -1] += count
        sums.correct[0, 0, -1] += count
        sums.confidence[0, 0, -1] += total[0]
        sums.class_count[0, 0, -1] += count
        sums.class_positive[0, 0, -1] += count
        sums.class_confidence[0, 0, -1] += total[0]
        sums.class_count[0, 1:, 0] += count
        sums.class_confidence[0, 1:, 0] += total[1:]
        sums.nll[0] -= self.log
        sums.brier[0] += self.brier


class RegionCounter(_Counter):
    """Counts sigmoid regions: each a problem of two classes, in and out."""

    def add(self, chunk: Tensor, truth: Tensor, masks: list[Tensor]) -> None:
        group = group_numbers(truth.any(0), masks)
        plain = chunk.amax(0) < region_threshold(self.n_bins)
        plain &= group == 0
        special = (~plain).nonzero().squeeze(1)
        self.num_plain += chunk.shape[1] - len(special)
        values = self._plain_only(chunk, special)
        self.total += values.sum(1)
        self.log += torch.stack([_sum_of_logs(1 - row) for row in values])
        self.brier += 2 * torch.stack([torch.dot(row, row) for row in values])
        if len(special):
            self._put(chunk.index_select(1, special), truth.index_select(1, special), group.index_select(0, special))

    def _count(self, probs: Tensor, truth: Tensor, group: Tensor) -> None:
        sums, n_bins = self.sums, self.n_bins
        double = probs.double()
        predicted = probs > 0.5
        group = group.long() | predicted.any(0).long() << PREDICTED
        region = torch.arange(self.num_channels, device=probs.device)[:, None]
        row = (group * self.num_channels + region).view(-1)
        confidence = torch.where(predicted, double, 1 - double).view(-1)
        key = row * n_bins + bin_index(confidence, n_bins)
        add_at(sums.count, key)
        add_at(sums.confidence, key, confidence)
        add_at(sums.correct, key[(predicted == truth).view(-1)])
        sums.add_class_bins(probs, double, group)
        add_at(sums.class_positive, (row * n_bins + bin_index(probs, n_bins).view(-1))[truth.reshape(-1)])
        own = torch.where(truth, double, 1 - double)
        add_at(sums.nll, row, -own.clamp_min(SMALLEST).log().view(-1))
        add_at(sums.brier, row, 2 * (1 - own).square().view(-1))

    def finish(self) -> None:
        """Count what is pending, and the plain voxels."""
        self._flush()
        if not self.num_plain:
            return
        sums, count, total = self.sums, self.num_plain, self.total
        sums.count[0, :, -1] += count
        sums.correct[0, :, -1] += count
        sums.confidence[0, :, -1] += count - total
        sums.class_count[0, :, 0] += count
        sums.class_confidence[0, :, 0] += total
        sums.nll[0] -= self.log
        sums.brier[0] += self.brier


def _sum_of_logs(values: Tensor) -> Tensor:
    """Sum of the logarithms of values not far below 1, in float64 at the price of few logarithms: of products."""
    factors = 64
    whole = len(values) // factors * factors
    products = values[:whole].view(factors, -1).prod(0, dtype=torch.float64)
    return products.log().sum() + values[whole:].double().log().sum()
