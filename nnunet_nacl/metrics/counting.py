"""Counts the calibration sums of all masks of a case in one pass.

Masks overlap, but voxels fall into few disjoint groups (truth foreground x predicted foreground x
each further mask), and every mask is a sum of groups. Most voxels are plain: labelled background,
in no mask, the background's probability in the top bin and all others, or those of all regions, in
the lowest. Of them only sums of distances from the truth are needed: 1 - p_0 and p_k for classes,
p_r for regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats, bin_index
from nnunet_nacl.metrics.inputs import (
    SUM_TOLERANCE,
    AnyArray,
    check_probabilities,
    find_most_probable,
    find_true,
    read_labels,
    read_mask,
    read_probs,
    read_tensor,
    split_range,
)

BUILT_IN_MASKS = ("all", "foreground", "predicted", "union")

_MAX_EXTRA_MASKS = 5
_CPU_PROBABILITIES = 1 << 18  # at a time: they stay in the cache
_FEWEST_CPU_VOXELS = 1 << 12  # at a time
_GPU_VOXELS = 1 << 22  # at a time
_SLACK = 1e-3  # how far a plain voxel's probabilities stay from the bin edges
_SMALLEST = float(torch.finfo(torch.float32).tiny)


def count_masks(
    probs: AnyArray,
    truth: AnyArray,
    *,
    segmentation: AnyArray | None = None,
    extra_masks: Mapping[str, AnyArray] | None = None,
    valid: AnyArray | None = None,
    ignore_label: int | None = None,
    regions: bool = False,
    n_bins: int = DEFAULT_N_BINS,
    weights: AnyArray | None = None,
) -> dict[str, BinStats]:
    """Calibration sums of one case for all masks, in bounded memory.

    The confidence of a voxel is the probability of the label that is delivered, most probable or
    not.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region
            probabilities; any floating type, any device (where that has no double precision,
            Apple's MPS, a copy on the CPU is counted).
        truth: (*spatial) or (1, *spatial) class indices 0..K-1; with ``regions`` (R, *spatial)
            booleans or 0/1.
        segmentation: Labels that are delivered, of the shape of the truth. None: the most probable
            ones, the lower class of equals (regions: above 0.5).
        extra_masks: Further masks by name, each (*spatial) boolean; at most five.
        valid: (*spatial) boolean, False where a voxel is ignored; such voxels are in no mask.
        ignore_label: Label in ``truth`` that marks ignored voxels (classes only).
        regions: Whether the probabilities are those of sigmoid regions.
        n_bins: Number of equal bins.
        weights: (*spatial) how many voxels each one stands for, as in a sample; None: one each.

    Returns:
        Sums on the CPU by mask: ``all`` voxels, ``foreground`` (the truth is not background, or
        inside any region), ``predicted`` (the delivered label is not), ``union`` (either), and the
        further ones.

    Raises:
        ValueError: Shapes do not fit, a label is none of the classes, an array is masked, or
            probabilities are not probabilities.
    """
    masks = extra_masks or {}
    _check_names_of_masks(masks)
    if ignore_label is not None and regions:
        raise ValueError(
            "ignore_label has no meaning with regions=True: give the mask of known voxels as valid."
        )
    probs = read_tensor(probs, "probs")
    if probs.device.type == "mps":
        probs = probs.cpu()
    probs = read_probs(probs, regions)
    delivered = None
    if segmentation is not None:
        delivered, _ = read_labels(segmentation, probs, LabelSpace(regions))
    known = read_mask(valid, "valid", probs) if valid is not None else None
    truth, known = read_labels(truth, probs, LabelSpace(regions, ignore_label), known, name="truth")
    case = _Case(
        probs=probs.reshape(len(probs), -1),
        truth=truth,
        segmentation=delivered,
        masks=[read_mask(mask, f"mask {name!r}", probs) for name, mask in masks.items()],
        valid=known,
        weights=_read_weights(weights, probs),
        regions=regions,
    )
    zero = BinStats.zeros(len(probs), n_bins=n_bins, regions=regions)
    sums = _GroupSums(list(masks), zero, regions, probs.device)
    for part in split_range(case.probs.shape[1], case.voxels_at_a_time):
        voxels = case.take_valid(part)
        if voxels.number:
            sums.add(voxels)
    return sums.by_mask()


def _check_names_of_masks(extra_masks: Mapping[str, AnyArray]) -> None:
    """ValueError where there are too many further masks, or one has the name of a built-in one."""
    built_in = extra_masks.keys() & set(BUILT_IN_MASKS)
    if built_in:
        raise ValueError(
            f"The mask {min(built_in)!r} is built in and cannot be given; use another name."
        )
    if len(extra_masks) > _MAX_EXTRA_MASKS:
        raise ValueError(
            f"At most {_MAX_EXTRA_MASKS} extra masks are possible, got {len(extra_masks)}."
        )


def _read_weights(weights: AnyArray | None, probs: Tensor) -> Tensor | None:
    """(N,) double weights, one for each voxel; None of None."""
    if weights is None:
        return None
    flat = read_tensor(weights, "weights").to(probs.device).double().flatten()
    num_voxels = probs[0].numel()
    if len(flat) != num_voxels:
        raise ValueError(f"one weight per voxel is needed, got {len(flat)} for {num_voxels}.")
    return flat


@dataclass(frozen=True)
class _Voxels:
    """Voxels that count: a block of a case without what is not valid.

    Attributes:
        probs: (C, n) probabilities of K classes or R regions, float32 or float64.
        truth: (n,) class indices, or (R, n) booleans.
        labels: The delivered ones, as ``truth``.
        masks: (n,) booleans of each further mask.
        weights: (n,) how many voxels each stands for; None: one each.
    """

    probs: Tensor
    truth: Tensor
    labels: Tensor
    masks: Sequence[Tensor]
    weights: Tensor | None

    @property
    def number(self) -> int:
        """How many these are."""
        return self.probs.shape[1]


@dataclass(frozen=True)
class _Case:
    """The arguments of :func:`count_masks`, checked, with the voxels in one row.

    Attributes:
        probs: (C, N) probabilities.
        truth: (N,) class indices, or (R, N) booleans.
        segmentation: Delivered labels, as ``truth``; None: the most probable ones.
        masks: (N,) booleans of each further mask.
        valid: (N,) booleans; None: all voxels are valid.
        weights: (N,) double; None: each voxel stands for one.
        regions: Whether the channels are regions.
    """

    probs: Tensor
    truth: Tensor
    segmentation: Tensor | None
    masks: Sequence[Tensor]
    valid: Tensor | None
    weights: Tensor | None
    regions: bool

    @property
    def voxels_at_a_time(self) -> int:
        """Size of the blocks in which a case is counted."""
        if self.probs.device.type != "cpu":
            return _GPU_VOXELS
        return max(_FEWEST_CPU_VOXELS, _CPU_PROBABILITIES // len(self.probs))

    def take_valid(self, part: slice) -> _Voxels:
        """The valid voxels of a part; ValueError where its probabilities, valid or not, are
        none."""
        probs = self.probs[:, part]
        if probs.dtype not in (torch.float32, torch.float64):
            probs = probs.float()
        check_probabilities(probs, self.regions)
        kept: slice | Tensor = slice(None)
        if self.valid is not None and not self.valid[part].all():
            kept = find_true(self.valid[part])
            probs = probs.index_select(1, kept)
        if self.segmentation is not None:
            labels = self.segmentation[..., part][..., kept]
        elif probs.shape[1]:
            labels = find_most_probable(probs, self.regions)
        else:
            labels = self.truth[..., part][..., kept]  # of no voxel
        weights = self.weights[part][kept] if self.weights is not None else None
        return _Voxels(
            probs=probs,
            truth=self.truth[..., part][..., kept],
            labels=labels,
            masks=[mask[part][kept] for mask in self.masks],
            weights=weights,
        )


class _GroupSums:
    """Sums of disjoint groups of voxels.

    Bit i of a group's number tells whether its voxels are in the ith of the masks ``foreground``,
    ``predicted`` and the further ones; group 0 is in none.
    """

    def __init__(
        self, extra_masks: Sequence[str], zero: BinStats, regions: bool, device: torch.device
    ) -> None:
        self._masks = ["foreground", "predicted", *extra_masks]
        self._n_bins = zero.n_bins
        self._regions = regions
        num_groups = 1 << len(self._masks)
        self._sums: dict[str, Tensor] = {}  # by field of BinStats, with an axis of groups before
        for field in fields(zero):
            array = torch.as_tensor(getattr(zero, field.name), device=device).double()
            self._sums[field.name] = array.repeat(num_groups, *[1] * array.ndim)

    def by_mask(self) -> dict[str, BinStats]:
        """Sums of every mask, from those of the groups in it."""
        group = np.arange(len(self._sums["count"]))
        is_in_mask = {}
        for bit, name in enumerate(self._masks):
            is_in_mask[name] = (group >> bit & 1).astype(bool)
        is_in_mask["all"] = group >= 0
        is_in_mask["union"] = is_in_mask["foreground"] | is_in_mask["predicted"]
        arrays = {name: sums.cpu().numpy() for name, sums in self._sums.items()}
        stats = {}
        for mask, is_in in is_in_mask.items():
            stats[mask] = BinStats(
                **{name: array[is_in].sum(axis=0) for name, array in arrays.items()}
            )
        return stats

    def add(self, voxels: _Voxels) -> None:
        """Add voxels: the plain ones together, each other one by its bins."""
        in_masks = [*self._find_foregrounds(voxels), *voxels.masks]
        if voxels.weights is None:
            is_plain = self._find_plain(voxels.probs, in_masks)
        else:
            is_plain = torch.zeros_like(in_masks[0])
        singly = find_true(~is_plain)
        bits = [in_mask[singly].long() << bit for bit, in_mask in enumerate(in_masks)]
        group = torch.stack(bits).sum(0)
        if voxels.weights is None:
            weights = torch.ones(1, device=group.device).double().expand(len(singly))
        else:
            weights = voxels.weights  # of all: with weights no voxel is plain
        self._add_singly(
            voxels.probs.index_select(-1, singly),
            voxels.truth.index_select(-1, singly),
            voxels.labels.index_select(-1, singly),
            group,
            weights,
        )
        if len(singly) < voxels.number:
            self._add_plain(voxels.probs, is_plain)

    def _find_foregrounds(self, voxels: _Voxels) -> tuple[Tensor, Tensor]:
        """(n,) whether truth, and delivered label, are a structure."""
        if self._regions:
            return voxels.truth.any(0), voxels.labels.any(0)
        return voxels.truth > 0, voxels.labels > 0

    def _find_plain(self, probs: Tensor, in_masks: Sequence[Tensor]) -> Tensor:
        """(n,) which voxels are in no mask and have their probabilities in the outermost bins."""
        if self._regions:
            is_plain = probs.amax(0) <= min(1 / self._n_bins, 0.5) - _SLACK
        else:
            # Above this background probability all others are in the lowest bin, and lower, even
            # where the sum is not quite 1.
            is_plain = probs[0] > max(1 - 1 / self._n_bins, 0.5) + 2 * SUM_TOLERANCE + _SLACK
        for in_mask in in_masks:
            is_plain &= ~in_mask
        return is_plain

    def _add_singly(
        self, probs: Tensor, truth: Tensor, labels: Tensor, group: Tensor, weights: Tensor
    ) -> None:
        """Voxels that are not plain, with the number of the group of each."""
        channel = torch.arange(len(probs), device=probs.device)[:, None]
        double = probs.double()
        if self._regions:
            is_right = labels == truth
            is_class = truth
            confidence = torch.where(labels, double, 1 - double)
            p_truth = torch.where(truth, double, 1 - double)
            brier = 2 * (1 - p_truth).square()
        else:
            class_index = truth.long()[None]
            label_index = labels.long()[None]
            is_right = label_index == class_index
            is_class = channel == class_index
            confidence = probs.gather(0, label_index)
            p_truth = double.gather(0, class_index)
            brier = double.square().sum(0) + 1 - 2 * p_truth

        num_rows = len(p_truth)  # 1, or R
        row = group * num_rows + channel[:num_rows]
        flat_index = row * self._n_bins + bin_index(confidence, self._n_bins)
        self._add_at("count", flat_index, weights)
        self._add_at("confidence", flat_index, confidence * weights)
        self._add_at("correct", flat_index, weights, is_right)
        self._add_at("nll", row, -p_truth.clamp_min(_SMALLEST).log() * weights)
        self._add_at("brier", row, brier * weights)
        class_row = group * len(probs) + channel
        flat_class_index = class_row * self._n_bins + bin_index(probs, self._n_bins)
        self._add_at("class_count", flat_class_index, weights)
        self._add_at("class_confidence", flat_class_index, double * weights)
        self._add_at("class_positive", flat_class_index, weights, is_class)

    def _add_at(
        self, name: str, flat_index: Tensor, values: Tensor, among: Tensor | None = None
    ) -> None:
        """Add values to elements of the flattened sums of a field, of which one may come twice.

        Args:
            name: Field of ``BinStats``.
            flat_index: Indices of the elements.
            values: What can be expanded to their shape.
            among: Booleans of that shape: which of them count; None: all.
        """
        values = values.expand(flat_index.shape)
        if among is not None:
            values = values[among]
            flat_index = flat_index[among]
        sums = self._sums[name].view(-1)
        sums += torch.bincount(
            flat_index.reshape(-1), weights=values.reshape(-1), minlength=sums.numel()
        )

    def _add_plain(self, probs: Tensor, is_plain: Tensor) -> None:
        """The voxels where ``is_plain``, all in the group 0."""
        count = int(is_plain.sum())
        distance = probs.double() * is_plain  # from the truth, 0 elsewhere
        if not self._regions:
            distance[0] = is_plain.double() - distance[0]
        total = distance.sum(1)
        squares = distance.square().sum(1)
        # Views: what is added to them in place is added to the sums of group 0.
        sums = {name: by_group[0] for name, by_group in self._sums.items()}

        num_rows = len(sums["count"])  # 1, or R
        sums["count"][:, -1] += count
        sums["correct"][:, -1] += count
        sums["confidence"][:, -1] += count - total[:num_rows]
        sums["nll"] -= torch.log1p(-distance[:num_rows]).sum(1)
        if self._regions:
            sums["brier"] += 2 * squares
            first_structure = 0
        else:
            sums["brier"] += squares.sum()
            first_structure = 1
            # The background's own probability lies in the top bin.
            sums["class_count"][0, -1] += count
            sums["class_positive"][0, -1] += count
            sums["class_confidence"][0, -1] += count - total[0]
        sums["class_count"][first_structure:, 0] += count
        sums["class_confidence"][first_structure:, 0] += total[first_structure:]
