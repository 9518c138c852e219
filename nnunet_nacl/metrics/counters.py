"""Count chunks of voxels: the plain ones by sums over everything, the special ones one by one, in double precision.

Special voxels are gathered over several chunks, so that the price of an operation is paid for many of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import bin_index
from nnunet_nacl.metrics.checks import SUM_TOLERANCE
from nnunet_nacl.metrics.groups import PREDICTED, GroupSums, group_numbers
from nnunet_nacl.metrics.plain_voxels import PlainSums, background_threshold, region_threshold
from nnunet_nacl.metrics.primitives import add_at, exceeds, order_of, take_columns, where_true

__all__ = ["SMALLEST", "ClassCounter", "RegionCounter"]

SMALLEST = float(torch.finfo(torch.float32).tiny)


class _Counter:
    """Common part: what is pending, and the sums of the plain voxels.

    Args:
        probs: (K, N) probabilities of the case.
        sums: Where the result goes.
        batch_voxels: How many special voxels are gathered before they are counted.
    """

    regions: bool

    def __init__(self, probs: Tensor, sums: GroupSums, batch_voxels: int) -> None:
        self.probs, self.sums, self._batch = probs, sums, batch_voxels
        self.num_groups, self.num_channels, self.n_bins = sums.class_count.shape
        self.plain = PlainSums(self.num_channels, self.regions, sums.nll.device)
        self._pending: list[tuple[Tensor, ...]] = []
        self._num_pending = 0

    def add(self, chunk: Tensor, index: Tensor | int, truth: Tensor, masks: list[Tensor]) -> None:
        """Count a chunk.

        Args:
            chunk: (K, n) probabilities, float32 or float64.
            index: Where they stand in ``probs``: (n,) indices, or the first of n in a row.
            truth: (n,) labels, or (R, n) booleans.
            masks: (n,) booleans.
        """
        special = self._unsure(chunk)
        foreground = self._foreground(truth)
        special |= foreground
        for mask in masks:
            special |= mask
        where = where_true(special)
        self.plain.add(chunk, where)
        if len(where):
            group = group_numbers(foreground[where], [mask[where] for mask in masks])
            place = index + where if isinstance(index, int) else index.index_select(0, where)
            self._pending.append((place, truth.index_select(-1, where), group))
            self._num_pending += len(where)
            if self._num_pending >= self._batch:
                self._flush()

    def finish(self) -> None:
        """Count what is pending, and the plain voxels."""
        self._flush()
        if self.plain.num_voxels:
            self.plain.finish()
            self._add_plain(self.plain)

    def _unsure(self, chunk: Tensor) -> Tensor:
        """(n,) whether a voxel's probabilities may lie in other bins than a plain voxel's."""
        raise NotImplementedError

    def _foreground(self, truth: Tensor) -> Tensor:
        """(n,) whether a voxel is labelled foreground."""
        raise NotImplementedError

    def _count(self, probs: Tensor, truth: Tensor, group: Tensor) -> None:
        """Count special voxels, sorted by group."""
        raise NotImplementedError

    def _add_plain(self, plain: PlainSums) -> None:
        raise NotImplementedError

    def _flush(self) -> None:
        if not self._num_pending:
            return
        where, truth, group = (torch.cat(parts, -1) for parts in zip(*self._pending))
        self._pending, self._num_pending = [], 0
        order = order_of(group)
        where, truth, group = (values.index_select(-1, order) for values in (where, truth, group))
        probs = take_columns(self.probs, where)
        if probs.dtype not in (torch.float32, torch.float64):
            probs = probs.float()
        self._count(probs, truth, group)


class ClassCounter(_Counter):
    """Counts softmax classes."""

    regions = False

    def _unsure(self, chunk: Tensor) -> Tensor:
        return ~exceeds(chunk[0], background_threshold(self.n_bins))

    def _foreground(self, truth: Tensor) -> Tensor:
        return exceeds(truth, 0)

    def _count(self, probs: Tensor, truth: Tensor, group: Tensor) -> None:
        sums, n_bins, num_classes = self.sums, self.n_bins, self.num_channels
        label, voxel = truth.long(), torch.arange(len(truth), device=truth.device)
        own = probs.view(-1).index_select(0, label * len(voxel) + voxel)
        # above a half the labelled class is the most probable one; only the other voxels need a look at all classes
        confidence, predicted = own.clone(), label.clone()
        unsure = where_true(~exceeds(own, 0.5 + SUM_TOLERANCE))
        confidence[unsure], predicted[unsure] = take_columns(probs, unsure).max(0)
        wrong = predicted != label
        foreground = predicted.bool()
        full = group.long() + (foreground.long() << PREDICTED)

        # the most probable classes: with these keys, they tell of the bins of all classes and of the top label
        key = ((full * num_classes + predicted) * 2 + wrong) * n_bins + bin_index(confidence, n_bins)
        shape = self.num_groups, num_classes, 2, n_bins
        count = torch.bincount(key, minlength=sums.class_count.numel() * 2).view(shape)
        confidences = torch.bincount(key, weights=confidence.double(), minlength=count.numel()).view(shape)
        sums.count[:, 0] += count.sum((1, 2))
        sums.correct[:, 0] += count[:, :, 0].sum(1)
        sums.confidence[:, 0] += confidences.sum((1, 2))
        class_count, class_confidence = count.sum(2), confidences.sum(2)
        sums.class_positive += count[:, :, 0]
        total_count = count.sum((1, 2, 3))

        missed = where_true(wrong)
        add_at(
            sums.class_positive, (full[missed] * num_classes + label[missed]) * n_bins + bin_index(own[missed], n_bins)
        )
        # further classes above the lowest bin
        above = exceeds(probs, 1.0 / n_bins)
        above.view(-1).index_fill_(0, predicted * len(voxel) + voxel, False)
        above = where_true(above)
        if len(above):
            which = torch.div(above, len(voxel), rounding_mode="floor")
            key = (full[above - which * len(voxel)] * num_classes + which) * n_bins
            values = probs.view(-1).index_select(0, above)
            key += bin_index(values, n_bins)
            add_at(class_count, key)
            add_at(class_confidence, key, values.double())

        # the lowest bins get what the others leave of the totals
        per_voxel = torch.empty(num_classes + 2, len(label), dtype=torch.float64, device=probs.device)
        double = per_voxel[:num_classes].copy_(probs)
        own = own.double()
        per_voxel[-2] = own.clamp_min(SMALLEST).log_()
        self.plain.take_off(double)
        torch.sum(double.square(), 0, out=per_voxel[-1])
        per_voxel[-1] += 1 - 2 * own
        total = torch.zeros(self.num_groups, num_classes + 2, dtype=torch.float64, device=probs.device)
        side = torch.stack([~foreground, foreground]).double()
        sizes = torch.bincount(group, minlength=self.num_groups).tolist()
        start = 0
        for number, size in enumerate(sizes):
            if size:
                part = slice(start, start + size)
                total[[number, number | 1 << PREDICTED]] += side[:, part] @ per_voxel[:, part].T
                start += size
        class_count[..., 0] += total_count[:, None] - class_count.sum(-1)
        class_confidence[..., 0] += (total[:, :num_classes] - class_confidence.sum(-1)).clamp_min_(0)
        sums.class_count += class_count
        sums.class_confidence += class_confidence
        sums.nll[:, 0] -= total[:, -2]
        sums.brier[:, 0] += total[:, -1]

    def _add_plain(self, plain: PlainSums) -> None:
        sums, count = self.sums, plain.num_voxels
        confidence = count - plain.total[0]
        sums.count[0, 0, -1] += count
        sums.correct[0, 0, -1] += count
        sums.confidence[0, 0, -1] += confidence
        sums.class_count[0, 0, -1] += count
        sums.class_positive[0, 0, -1] += count
        sums.class_confidence[0, 0, -1] += confidence
        sums.class_count[0, 1:, 0] += count
        sums.class_confidence[0, 1:, 0] += plain.total[1:]
        sums.nll[0] -= plain.log
        sums.brier[0] += plain.squares.sum()


class RegionCounter(_Counter):
    """Counts sigmoid regions: each a problem of two classes, in and out."""

    regions = True

    def _unsure(self, chunk: Tensor) -> Tensor:
        return exceeds(chunk.amax(0), region_threshold(self.n_bins))

    def _foreground(self, truth: Tensor) -> Tensor:
        return truth.any(0)

    def _count(self, probs: Tensor, truth: Tensor, group: Tensor) -> None:
        sums, n_bins = self.sums, self.n_bins
        double = probs.double()
        self.plain.take_off(double)
        predicted = probs > 0.5
        group = group.long() | predicted.any(0).long() << PREDICTED
        region = torch.arange(self.num_channels, device=probs.device)[:, None]
        row = (group * self.num_channels + region).view(-1)
        confidence = torch.where(predicted, double, 1 - double).view(-1)
        key = row * n_bins + bin_index(confidence, n_bins)
        add_at(sums.count, key)
        add_at(sums.confidence, key, confidence)
        add_at(sums.correct, key[(predicted == truth).view(-1)])
        key = row * n_bins + bin_index(probs, n_bins).view(-1)
        add_at(sums.class_count, key)
        add_at(sums.class_confidence, key, double.view(-1))
        add_at(sums.class_positive, key[truth.reshape(-1)])
        own = torch.where(truth, double, 1 - double)
        add_at(sums.nll, row, -own.clamp_min(SMALLEST).log().view(-1))
        add_at(sums.brier, row, 2 * (1 - own).square().view(-1))

    def _add_plain(self, plain: PlainSums) -> None:
        sums, count = self.sums, plain.num_voxels
        sums.count[0, :, -1] += count
        sums.correct[0, :, -1] += count
        sums.confidence[0, :, -1] += count - plain.total
        sums.class_count[0, :, 0] += count
        sums.class_confidence[0, :, 0] += plain.total
        sums.nll[0] -= plain.log
        sums.brier[0] += 2 * plain.squares
