"""Count chunks of voxels: the plain ones by sums over everything, the special ones one by one.

A voxel is plain if it is labelled background, lies in no mask, and its probabilities lie in bins that are known without
looking: the background's in the top bin, all others in the lowest (a region's in the lowest). Special voxels are
gathered over several chunks, so that the price of an operation is paid for many of them; what the plain ones sum to
is what everything sums to less what the special ones do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import bin_index
from nnunet_nacl.metrics.checks import SUM_TOLERANCE
from nnunet_nacl.metrics.groups import PREDICTED, GroupSums, add_at, group_numbers

__all__ = ["ClassCounter", "RegionCounter"]

_SLACK = 1e-3  # how far a plain voxel's probabilities stay from the bin edges
_SMALLEST = float(torch.finfo(torch.float32).tiny)
_BLOCK = 128  # values that are added in single precision before double precision takes over; see _row_sums
_SMALL = 1 << 22  # cases of fewer voxels are added in double precision throughout


class _Counter:
    """Common part: what is pending, and the totals.

    Args:
        sums: Where the result goes.
        batch_voxels: How many special voxels are gathered before they are counted.
        num_voxels: How many voxels there will be.
    """

    def __init__(self, sums: GroupSums, batch_voxels: int, num_voxels: int) -> None:
        self.sums, self._batch = sums, batch_voxels
        self._block = 1 if num_voxels < _SMALL else _BLOCK
        self.num_groups, self.num_channels, self.n_bins = sums.class_count.shape
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self._num_pending = 0
        device = sums.nll.device
        rows = sums.nll.shape[1]
        self.num_plain = 0
        self.total = torch.zeros(self.num_channels, dtype=torch.float64, device=device)
        self.total_squares = torch.zeros(rows, dtype=torch.float64, device=device)
        self.plain_log = torch.zeros(rows, dtype=torch.float64, device=device)

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
        # above this all others lie in the lowest bin and the background wins, even if the sum is not quite 1
        plain = background > max(1 - 1 / self.n_bins, 0.5) + 2 * SUM_TOLERANCE + _SLACK
        plain &= group == 0
        special = (~plain).nonzero().squeeze(1)
        self.num_plain += chunk.shape[1] - len(special)
        total, squares = _row_sums(chunk, self._block)
        if self._block > 1:  # near 1 the error of single precision would show
            background_double = background.double()
            total[0], squares[0] = background_double.sum(), torch.dot(background_double, background_double)
        self.total += total
        self.total_squares += squares.sum()
        self.plain_log += _sum_of_logs(torch.where(plain, background, 1))
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
        self.total -= sums.add_class_bins(probs, double, group)
        add_at(sums.class_positive, (group * self.num_channels + label) * n_bins + bin_index(own, n_bins))
        own = own.double()
        squares = double.square_().sum(0)  # in place: the last use of it
        self.total_squares -= squares.sum()
        add_at(sums.nll, group, -own.clamp_min(_SMALLEST).log())
        add_at(sums.brier, group, squares - 2 * own + 1)

    def finish(self) -> None:
        """Count what is pending, and the plain voxels."""
        self._flush()
        if not self.num_plain:
            return
        sums, count, total = self.sums, self.num_plain, self.total.clamp_min(0)
        sums.count[0, 0, -1] += count
        sums.correct[0, 0, -1] += count
        sums.confidence[0, 0, -1] += total[0]
        sums.class_count[0, 0, -1] += count
        sums.class_positive[0, 0, -1] += count
        sums.class_confidence[0, 0, -1] += total[0]
        sums.class_count[0, 1:, 0] += count
        sums.class_confidence[0, 1:, 0] += total[1:]
        sums.nll[0] -= self.plain_log
        sums.brier[0] += (self.total_squares - 2 * total[0] + count).clamp_min(0)


class RegionCounter(_Counter):
    """Counts sigmoid regions: each a problem of two classes, in and out."""

    def add(self, chunk: Tensor, truth: Tensor, masks: list[Tensor]) -> None:
        group = group_numbers(truth.any(0), masks)
        plain = chunk.amax(0) < min(1 / self.n_bins, 0.5) - _SLACK
        plain &= group == 0
        special = (~plain).nonzero().squeeze(1)
        self.num_plain += chunk.shape[1] - len(special)
        total, squares = _row_sums(chunk, self._block)
        self.total += total
        self.total_squares += squares
        self.plain_log += torch.stack([_sum_of_logs(torch.where(plain, 1 - row.double(), 1)) for row in chunk])
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
        self.total -= sums.add_class_bins(probs, double, group)
        add_at(sums.class_positive, (row * n_bins + bin_index(probs, n_bins).view(-1))[truth.reshape(-1)])
        own = torch.where(truth, double, 1 - double)
        self.total_squares -= double.square().sum(1)
        add_at(sums.nll, row, -own.clamp_min(_SMALLEST).log().view(-1))
        add_at(sums.brier, row, 2 * (1 - own).square().view(-1))

    def finish(self) -> None:
        """Count what is pending, and the plain voxels."""
        self._flush()
        if not self.num_plain:
            return
        sums, count, total = self.sums, self.num_plain, self.total.clamp_min(0)
        sums.count[0, :, -1] += count
        sums.correct[0, :, -1] += count
        sums.confidence[0, :, -1] += count - total
        sums.class_count[0, :, 0] += count
        sums.class_confidence[0, :, 0] += total
        sums.nll[0] -= self.plain_log
        sums.brier[0] += 2 * self.total_squares.clamp_min(0)


def _row_sums(chunk: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Sums and sums of squares of each row of (K, n) values, float64.

    In large cases converting everything to double precision first would take longer than all the rest. So blocks of a
    few values are added in single precision. Beside an independent sum in double precision that changes the Brier
    score of the mask ``all`` by up to 3e-8 and the mean probabilities by up to 4e-9; counts stay exact.
    """
    whole = chunk.shape[1] // block * block if block > 1 and chunk.dtype == torch.float32 else 0
    rest = chunk[:, whole:].double()
    total, squares = rest.sum(1), rest.square().sum(1)
    if whole:
        blocks = chunk[:, :whole].unflatten(1, (-1, block))
        total += blocks.sum(-1).sum(1, dtype=torch.float64)
        squares += torch.linalg.vector_norm(blocks, dim=-1).double().square().sum(1)
    return total, squares


def _sum_of_logs(values: Tensor) -> Tensor:
    """Sum of the logarithms of values not far below 1, in float64 at the price of few logarithms: of products."""
    factors = 64
    whole = len(values) // factors * factors
    products = values[:whole].view(factors, -1).prod(0, dtype=torch.float64)
    return products.log().sum() + values[whole:].double().log().sum()
