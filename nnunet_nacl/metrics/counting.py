"""One pass over a case's probabilities: the calibration sums of every mask at once.

Two observations make it cheap. The masks overlap, but the voxels fall into few disjoint groups (truth foreground x
predicted foreground x each further mask), and every mask is a sum of groups. And most voxels are plain: labelled
background, in no mask, with nearly all probability on the background, so that their bins are known beforehand and only
sums over whole chunks are needed. The rest is gathered, and of it only probabilities above the lowest bin are binned:
what lies in the lowest bin follows from the totals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats, bin_index, check_n_bins
from nnunet_nacl.metrics.checks import SUM_TOLERANCE, check_chunk, read_inputs

__all__ = ["BUILT_IN_MASKS", "count_masks"]

BUILT_IN_MASKS = ("all", "foreground", "predicted", "union")

_TRUTH, _PREDICTED, _FIRST_EXTRA = 0, 1, 2  # bits of a group's number
_MAX_EXTRA_MASKS = 5
_SLACK = 1e-3  # how far a plain voxel's probabilities stay from the bin edges
_SMALLEST = float(torch.finfo(torch.float32).tiny)


def count_masks(
    probs: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    *,
    extra_masks: Mapping[str, Tensor | np.ndarray] | None = None,
    valid: Tensor | np.ndarray | None = None,
    ignore_label: int | None = None,
    regions: bool = False,
    n_bins: int = DEFAULT_N_BINS,
    check_values: bool = True,
    chunk_voxels: int | None = None,
) -> dict[str, BinStats]:
    """Calibration sums of one case for all masks, in bounded memory.

    ``foreground`` holds the voxels whose truth is not background (inside any region), ``predicted`` those whose
    largest probability is not the background's (any region's above 0.5), ``union`` both, ``all`` every voxel.
    Ignored voxels are in no mask.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region probabilities; any
            floating type, any device. Ties of the largest probability go to the lower class.
        truth: (*spatial) or (1, *spatial) class indices 0..K-1; with ``regions`` (R, *spatial) booleans or 0/1.
        extra_masks: Further masks by name, each (*spatial) boolean; at most five.
        valid: (*spatial) boolean, False where a voxel is ignored.
        ignore_label: Label in ``truth`` that marks ignored voxels (classes only).
        regions: Whether the probabilities are those of sigmoid regions.
        n_bins: Number of equal bins.
        check_values: Check that probabilities are finite, in [0, 1] and, for classes, sum to 1.
        chunk_voxels: Voxels per step; the result does not depend on it. Default: 65,536 on the CPU, 4 million else.

    Returns:
        Sums by mask name; they live on the CPU.

    Raises:
        ValueError: Shapes do not fit, a label is none of the classes, or probabilities are not probabilities.
    """
    check_n_bins(n_bins)
    case = read_inputs(probs, truth, extra_masks or {}, valid, ignore_label, regions)
    for name in case.masks:
        if name in BUILT_IN_MASKS:
            raise ValueError(f"The mask {name!r} is built in and cannot be given; use another name.")
    if len(case.masks) > _MAX_EXTRA_MASKS:
        raise ValueError(f"At most {_MAX_EXTRA_MASKS} extra masks are possible, got {len(case.masks)}.")
    if chunk_voxels is None:
        chunk_voxels = 1 << 16 if case.probs.device.type == "cpu" else 1 << 22

    num_classes, num_voxels = case.probs.shape
    sums = _GroupSums.zeros(1 << (_FIRST_EXTRA + len(case.masks)), num_classes, n_bins, regions, case.probs.device)
    count_chunk = _count_regions if regions else _count_classes
    extra = list(case.masks.values())
    for start in range(0, num_voxels, chunk_voxels):
        part = slice(start, start + chunk_voxels)
        chunk, labels, masks = case.probs[:, part], case.truth[..., part], [mask[part] for mask in extra]
        if chunk.dtype not in (torch.float32, torch.float64):
            chunk = chunk.float()
        if check_values:
            check_chunk(chunk, regions, case.tolerance)
        if case.valid is not None:
            keep = case.valid[part].nonzero().squeeze(1)
            if len(keep) < chunk.shape[1]:
                chunk, labels = chunk.index_select(1, keep), labels.index_select(-1, keep)
                masks = [mask.index_select(0, keep) for mask in masks]
        if chunk.shape[1]:
            count_chunk(sums, chunk, labels, masks)
    return sums.by_mask(list(case.masks))


@dataclass
class _GroupSums:
    """The fields of BinStats with a leading axis for the group, as tensors on the device of the probabilities."""

    count: Tensor
    confidence: Tensor
    correct: Tensor
    class_count: Tensor
    class_confidence: Tensor
    class_positive: Tensor
    nll: Tensor
    brier: Tensor

    @classmethod
    def zeros(
        cls, groups: int, num_classes: int, n_bins: int, regions: bool, device: torch.device
    ) -> _GroupSums:
        rows = num_classes if regions else 1

        def make(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(groups, *shape, dtype=dtype, device=device)

        real = torch.float64
        return cls(
            make(rows, n_bins), make(rows, n_bins, dtype=real), make(rows, n_bins),
            make(num_classes, n_bins), make(num_classes, n_bins, dtype=real), make(num_classes, n_bins),
            make(rows, dtype=real), make(rows, dtype=real),
        )  # fmt: skip

    def by_mask(self, extra: list[str]) -> dict[str, BinStats]:
        arrays = [getattr(self, name).cpu().numpy() for name in self.__dataclass_fields__]
        groups = np.arange(len(arrays[0]))
        truth, predicted = groups >> _TRUTH & 1 > 0, groups >> _PREDICTED & 1 > 0
        chosen = {"all": groups >= 0, "foreground": truth, "predicted": predicted, "union": truth | predicted}
        chosen |= {name: groups >> _FIRST_EXTRA + i & 1 > 0 for i, name in enumerate(extra)}
        return {name: BinStats(*(array[which].sum(axis=0) for array in arrays)) for name, which in chosen.items()}


def _group_numbers(truth_foreground: Tensor, masks: list[Tensor]) -> Tensor:
    """uint8 group of each voxel, the bit of the predicted foreground still 0."""
    numbers = truth_foreground.to(torch.uint8)
    for i, mask in enumerate(masks):
        numbers |= mask.to(torch.uint8) << _FIRST_EXTRA + i
    return numbers


def _add(target: Tensor, index: Tensor, weights: Tensor | None = None) -> None:
    """target.flat[index] += weights (or 1), duplicates included."""
    flat = target.view(-1)
    flat += torch.bincount(index, weights=weights, minlength=flat.numel())


def _add_class_bins(sums: _GroupSums, probs: Tensor, group: Tensor) -> None:
    """Bin (K, m) probabilities by group: those above the lowest bin one by one, the lowest bin from the totals."""
    groups, num_classes, n_bins = sums.class_count.shape
    members = torch.nn.functional.one_hot(group, groups)
    total_count, total = members.sum(0), (probs.double() @ members.double()).T  # (groups,), (groups, K)
    which, voxel = (probs > 1.0 / n_bins).nonzero(as_tuple=True)
    values = probs[which, voxel]
    index = (group[voxel] * num_classes + which) * n_bins + bin_index(values, n_bins)
    size = sums.class_count.numel()
    count = torch.bincount(index, minlength=size).view_as(sums.class_count)
    confidence = torch.bincount(index, weights=values.double(), minlength=size).view_as(sums.class_confidence)
    # an edge rounded upwards may leave a few values of the lowest bin among those binned: add, do not overwrite
    rest = total_count[:, None] - count.sum(-1)
    count[..., 0] += rest
    confidence[..., 0] += torch.where(rest > 0, (total - confidence.sum(-1)).clamp_min(0), 0)
    sums.class_count += count
    sums.class_confidence += confidence


def _count_classes(sums: _GroupSums, chunk: Tensor, labels: Tensor, masks: list[Tensor]) -> None:
    groups, num_classes, n_bins = sums.class_count.shape
    group = _group_numbers(labels != 0, masks)
    background = chunk[0]
    # above this all other probabilities lie in the lowest bin and the background wins, even if the sum is not quite 1
    plain = background > max(1 - 1 / n_bins, 0.5) + 2 * SUM_TOLERANCE + _SLACK
    plain &= group == 0
    special = (~plain).nonzero().squeeze(1)
    rest = chunk.index_select(1, special)
    rest_double = rest.double()
    squares = rest_double.square()

    num_plain = chunk.shape[1] - len(special)
    if num_plain:
        total = chunk.sum(1, dtype=torch.float64) - rest_double.sum(1)
        total_squares = torch.linalg.vector_norm(chunk, dim=1, dtype=torch.float64).square().sum() - squares.sum()
        log_likelihood = torch.where(plain, background.log(), 0).sum(dtype=torch.float64)
        sums.count[0, 0, -1] += num_plain
        sums.correct[0, 0, -1] += num_plain
        sums.confidence[0, 0, -1] += total[0]
        sums.class_count[0, 0, -1] += num_plain
        sums.class_positive[0, 0, -1] += num_plain
        sums.class_confidence[0, 0, -1] += total[0]
        sums.class_count[0, 1:, 0] += num_plain
        sums.class_confidence[0, 1:, 0] += total[1:].clamp_min(0)
        sums.nll[0, 0] -= log_likelihood
        sums.brier[0, 0] += (total_squares - 2 * total[0] + num_plain).clamp_min(0)
    if not len(special):
        return

    confidence, predicted = rest.max(0)
    label = labels.index_select(0, special).long()
    group = group.index_select(0, special).long() | (predicted != 0).long() << _PREDICTED
    own = rest.gather(0, label[None])[0]
    key = group * n_bins + bin_index(confidence, n_bins)
    _add(sums.count, key)
    _add(sums.confidence, key, confidence.double())
    _add(sums.correct, key[predicted == label])
    _add_class_bins(sums, rest, group)
    _add(sums.class_positive, (group * num_classes + label) * n_bins + bin_index(own, n_bins))
    own = own.double()
    _add(sums.nll, group, -own.clamp_min(_SMALLEST).log())
    _add(sums.brier, group, squares.sum(0) - 2 * own + 1)


def _count_regions(sums: _GroupSums, chunk: Tensor, inside: Tensor, masks: list[Tensor]) -> None:
    groups, num_regions, n_bins = sums.class_count.shape
    group = _group_numbers(inside.any(0), masks)
    plain = chunk.amax(0) < min(1 / n_bins, 0.5) - _SLACK
    plain &= group == 0
    special = (~plain).nonzero().squeeze(1)
    rest = chunk.index_select(1, special)
    rest_double = rest.double()

    num_plain = chunk.shape[1] - len(special)
    if num_plain:
        total = (chunk.sum(1, dtype=torch.float64) - rest_double.sum(1)).clamp_min(0)
        squares = torch.linalg.vector_norm(chunk, dim=1, dtype=torch.float64).square() - rest_double.square().sum(1)
        log_likelihood = torch.where(plain, torch.log1p(-chunk), 0).sum(1, dtype=torch.float64)
        sums.count[0, :, -1] += num_plain
        sums.correct[0, :, -1] += num_plain
        sums.confidence[0, :, -1] += num_plain - total
        sums.class_count[0, :, 0] += num_plain
        sums.class_confidence[0, :, 0] += total
        sums.nll[0] -= log_likelihood
        sums.brier[0] += 2 * squares.clamp_min(0)
    if not len(special):
        return

    inside = inside.index_select(1, special)
    predicted = rest > 0.5
    group = group.index_select(0, special).long() | predicted.any(0).long() << _PREDICTED
    region = torch.arange(num_regions, device=chunk.device)[:, None]
    row = (group * num_regions + region).view(-1)
    confidence = torch.where(predicted, rest_double, 1 - rest_double).view(-1)
    key = row * n_bins + bin_index(confidence, n_bins)
    _add(sums.count, key)
    _add(sums.confidence, key, confidence)
    _add(sums.correct, key[(predicted == inside).view(-1)])
    _add_class_bins(sums, rest, group)
    _add(sums.class_positive, (row * n_bins + bin_index(rest, n_bins).view(-1))[inside.reshape(-1)])
    own = torch.where(inside, rest_double, 1 - rest_double)
    _add(sums.nll, row, -own.clamp_min(_SMALLEST).log().view(-1))
    _add(sums.brier, row, 2 * (1 - own).square().view(-1))
