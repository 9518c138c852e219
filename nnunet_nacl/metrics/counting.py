"""Counts the calibration sums of all masks of a case in one pass, and those of a stream of batches.

Masks overlap, but voxels fall into few disjoint groups (truth foreground x predicted foreground x
each further mask), and every mask is a sum of groups. Most voxels are plain: labelled background,
in no mask, the background's probability in the top bin and all others, or those of all regions, in
the lowest. Of them only sums of distances from the truth are needed: 1 - p_0 and p_k for classes,
p_r for regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics.binning import (
    DEFAULT_N_BINS,
    SUM_TOLERANCE,
    AnyArray,
    BinStats,
    bin_index,
    check_chunk,
    most_probable,
    parts,
    read_labels,
    read_mask,
    read_probs,
    read_tensor,
    where_true,
)
from nnunet_nacl.metrics.calibration_error import mask_metrics

BUILT_IN_MASKS = ("all", "foreground", "predicted", "union")

_MAX_EXTRA_MASKS = 5
_CPU_PROBABILITIES = 1 << 18  # at a time: they stay in the cache
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
        ValueError: Shapes do not fit, a label is none of the classes, or probabilities are not
            probabilities.
    """
    extra = extra_masks or {}
    if built_in := extra.keys() & set(BUILT_IN_MASKS):
        raise ValueError(
            f"The mask {min(built_in)!r} is built in and cannot be given; use another name."
        )
    if len(extra) > _MAX_EXTRA_MASKS:
        raise ValueError(f"At most {_MAX_EXTRA_MASKS} extra masks are possible, got {len(extra)}.")
    if ignore_label is not None and regions:
        raise ValueError(
            "ignore_label has no meaning with regions=True: give the mask of known voxels as valid."
        )
    probs = read_tensor(probs, "probs")
    # it lacks double precision
    probs = read_probs(probs.cpu() if probs.device.type == "mps" else probs, regions)
    device = probs.device
    delivered = (
        None if segmentation is None else read_labels(segmentation, probs, LabelSpace(regions))[0]
    )
    known = read_mask(valid, "valid", probs)
    truth, valid = read_labels(truth, probs, LabelSpace(regions, ignore_label), known, name="truth")
    masks: list[Any] = [read_mask(mask, f"mask {name!r}", probs) for name, mask in extra.items()]
    flat = probs.reshape(len(probs), -1)
    if weights is not None:
        weights = torch.as_tensor(weights, device=device).double().flatten()
        if len(weights) != flat.shape[1]:
            raise ValueError(
                f"one weight per voxel is needed, got {len(weights)} for {flat.shape[1]}."
            )
    sums = _GroupSums(
        list(extra), BinStats.zeros(len(flat), n_bins=n_bins, regions=regions), regions, device
    )
    step = max(1 << 12, _CPU_PROBABILITIES // len(flat)) if device.type == "cpu" else 1 << 22
    for part in parts(flat.shape[1], step):
        chunk = flat[:, part]
        if chunk.dtype not in (torch.float32, torch.float64):
            chunk = chunk.float()
        check_chunk(chunk, regions)
        keep: Any = slice(None)
        if valid is not None and not valid[part].all():
            keep = where_true(valid[part])
            chunk = chunk.index_select(1, keep)
        if chunk.shape[1]:
            labels = (
                most_probable(chunk, regions)
                if delivered is None
                else delivered[..., part][..., keep]
            )
            share = None if weights is None else weights[part][keep]
            sums.add(
                chunk,
                truth[..., part][..., keep],
                labels,
                [mask[part][keep] for mask in masks],
                share,
            )
    return sums.by_mask()


class _GroupSums:
    """Sums of disjoint groups of voxels."""

    def __init__(
        self, extra: Sequence[str], zero: BinStats, regions: bool, device: torch.device
    ) -> None:
        self._names, self._n_bins, self._regions = (
            ["foreground", "predicted", *extra],
            zero.n_bins,
            regions,
        )
        arrays = {
            field.name: torch.as_tensor(getattr(zero, field.name), device=device)
            for field in fields(zero)
        }
        groups = 1 << len(self._names)
        self._sums = {
            name: array.double().repeat(groups, *[1] * array.ndim) for name, array in arrays.items()
        }

    def by_mask(self) -> dict[str, BinStats]:
        """Sums of every mask, from those of the groups in it: bit i of a group's number is for the
        ith name."""
        groups = np.arange(len(self._sums["count"]))
        chosen = {name: (groups >> bit & 1).astype(bool) for bit, name in enumerate(self._names)}
        chosen |= {"all": groups >= 0, "union": chosen["foreground"] | chosen["predicted"]}
        arrays = [sums.cpu().numpy() for sums in self._sums.values()]
        return {
            name: BinStats(*(array[which].sum(axis=0) for array in arrays))
            for name, which in chosen.items()
        }

    def add(
        self,
        probs: Tensor,
        truth: Tensor,
        labels: Tensor,
        masks: Sequence[Tensor],
        weights: Tensor | None,
    ) -> None:
        """Add voxels: (K, n) probabilities, twice (n,) labels or (R, n) booleans, and (n,) booleans
        and weights."""
        if self._regions:
            inside = [truth.any(0), labels.any(0), *masks]
            plain = probs.amax(0) <= min(1 / self._n_bins, 0.5) - _SLACK
        else:
            # above this background probability all others are in the lowest bin, and lower, even if
            # the sum is not 1
            inside = [truth > 0, labels > 0, *masks]
            plain = probs[0] > max(1 - 1 / self._n_bins, 0.5) + 2 * SUM_TOLERANCE + _SLACK
        for mask in inside:
            plain &= ~mask
        if weights is not None:
            plain = torch.zeros_like(plain)
        where = where_true(~plain)
        group = torch.stack([mask[where].long() << bit for bit, mask in enumerate(inside)]).sum(0)
        weights = (
            torch.ones(1, device=probs.device).double().expand(len(where))
            if weights is None
            else weights
        )
        voxels, true, chosen = (array.index_select(-1, where) for array in (probs, truth, labels))
        self._add_singly(voxels, true, chosen, group, weights)
        if len(where) < probs.shape[1]:
            self._add_plain(probs, plain)

    def _add_singly(
        self, probs: Tensor, truth: Tensor, labels: Tensor, group: Tensor, weights: Tensor
    ) -> None:
        """Voxels that are not plain, with the number of the group of each."""
        double, rows = probs.double(), torch.arange(len(probs), device=probs.device)[:, None]
        if self._regions:
            right = labels == truth
            confidence, of_truth = (torch.where(of, double, 1 - double) for of in (labels, truth))
            brier = 2 * (1 - of_truth).square()
        else:
            truth, labels = truth.long()[None], labels.long()[None]
            right = labels == truth
            confidence, of_truth = probs.gather(0, labels), double.gather(0, truth)
            brier = double.square().sum(0) + 1 - 2 * of_truth

        def add(name: str, key: Tensor, values: Tensor, among: Tensor | None = None) -> None:
            values = (values * weights).expand(key.shape)
            if among is not None:
                key, values = key[among], values[among]
            flat = self._sums[name].view(-1)  # the same place may come twice
            flat += torch.bincount(
                key.reshape(-1), weights=values.reshape(-1), minlength=flat.numel()
            )

        row, one = group * len(of_truth) + rows[: len(of_truth)], torch.ones_like(weights)
        key = row * self._n_bins + bin_index(confidence, self._n_bins)
        add("count", key, one)
        add("confidence", key, confidence)
        add("correct", key, one, right)
        add("nll", row, -of_truth.clamp_min(_SMALLEST).log())
        add("brier", row, brier)
        key = (group * len(probs) + rows) * self._n_bins + bin_index(probs, self._n_bins)
        add("class_count", key, one)
        add("class_confidence", key, double)
        add("class_positive", key, one, truth if self._regions else rows == truth)

    def _add_plain(self, probs: Tensor, plain: Tensor) -> None:
        """The voxels where ``plain`` is true, all in the group 0."""
        count, distance = int(plain.sum()), probs.double() * plain
        if not self._regions:
            distance[0] = plain.double() - distance[0]
        total, squares = distance.sum(1), distance.square().sum(1)
        sums = {name: values[0] for name, values in self._sums.items()}
        rows, first = len(sums["count"]), 0 if self._regions else 1
        for name in ("count", "correct"):
            sums[name][:, -1] += count
        sums["confidence"][:, -1] += count - total[:rows]
        sums["class_count"][first:, 0] += count
        sums["class_confidence"][first:, 0] += total[first:]
        for name, value in (
            ("class_count", count),
            ("class_positive", count),
            ("class_confidence", count - total[0]),
        ):
            # the background's of_truth probability lies in the top bin
            sums[name][:first, -1] += value
        sums["nll"] -= torch.log1p(-distance[:rows]).sum(1)
        sums["brier"] += 2 * squares if self._regions else squares.sum()


class CalibrationMetric:
    """Calibration errors of everything seen so far, in a few kilobytes, with the life cycle of a
    torchmetrics metric.

    With torch.distributed initialised, :meth:`compute` adds the sums of all ranks first; every rank
    must call it.

    Args:
        num_classes: K classes with the background, or R regions.
        mask: ``all``, ``foreground``, ``predicted`` or ``union``, see ``count_masks``.
        regions: Whether the heads are sigmoid regions.
        ignore_label: Label of voxels to leave out (classes only).
        n_bins: Number of confidence bins.
        from_logits: Whether :meth:`update` gets logits rather than probabilities.

    Raises:
        ValueError: An argument is none of these.

    Examples:
        >>> metric = CalibrationMetric(num_classes=2)
        >>> metric.update(torch.tensor([[[4.0, 0.0], [0.0, 4.0]]]), torch.tensor([[0, 0]]))
        >>> round(metric.compute()["ECE"], 3)
        0.482
    """

    def __init__(
        self,
        num_classes: int,
        *,
        mask: str = "all",
        regions: bool = False,
        ignore_label: int | None = None,
        n_bins: int = DEFAULT_N_BINS,
        from_logits: bool = True,
    ) -> None:
        if mask not in BUILT_IN_MASKS:
            raise ValueError(f"mask must be one of {', '.join(BUILT_IN_MASKS)}, got {mask!r}.")
        least = 1 if regions else 2
        if not isinstance(num_classes, int) or num_classes < least:
            raise ValueError(
                f"num_classes must be an integer of at least {least}, got {num_classes!r}."
            )
        self.mask, self.regions, self.ignore_label, self.from_logits = (
            mask,
            regions,
            ignore_label,
            from_logits,
        )
        self._zero = self.stats = BinStats.zeros(num_classes, n_bins=n_bins, regions=regions)

    def update(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch; ValueError where shapes or values do not fit.

        Args:
            prediction: (B, K, *spatial), or (B, K) for a classifier.
            target: Classes: (B, *spatial) or (B, 1, *spatial) labels. Regions: (B, R, *spatial).
            valid: (B, *spatial) or (B, 1, *spatial), False where a voxel is ignored.
        """
        channels, shape = self._zero.num_classes, tuple(prediction.shape)
        if shape[1:2] != (channels,) or not prediction.is_floating_point():
            raise ValueError(
                f"prediction must be floating point, (B, {channels}, *spatial), got"
                f" {prediction.dtype} {shape}."
            )
        # (K, B, *spatial): the batch is one more spatial axis
        probs = prediction.detach().transpose(0, 1)
        target = target.transpose(0, 1) if target.ndim == prediction.ndim else target
        valid = (
            valid.transpose(0, 1) if valid is not None and valid.ndim == prediction.ndim else valid
        )
        if self.from_logits:
            probs = probs if probs.dtype == torch.float64 else probs.float()
            probs = torch.sigmoid(probs) if self.regions else torch.softmax(probs, 0)
        options: Any = {
            "ignore_label": self.ignore_label,
            "regions": self.regions,
            "n_bins": self._zero.n_bins,
        }
        self.stats = self.stats + count_masks(probs, target, valid=valid, **options)[self.mask]

    def __call__(
        self, prediction: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> dict[str, float]:
        """Add a batch, and return the metrics of it alone, as :meth:`update` and :meth:`compute`
        would."""
        before, self.stats = self.stats, self._zero
        try:
            self.update(prediction, target, valid)
            result = self.compute()
        finally:
            self.stats = before + self.stats
        return result

    def to(self, device: Any) -> CalibrationMetric:
        """Itself: batches are taken from any device, and the sums, a few kilobytes, stay on the
        CPU."""
        return self

    def compute(self) -> dict[str, float]:
        """The metrics of everything seen by all ranks: n_voxels, and those of ``MASK_METRICS`` by
        name."""
        stats = self.stats
        # NCCL moves GPU tensors only, Gloo takes both
        if dist.is_available() and dist.is_initialized():
            device = (
                torch.device("cuda", torch.cuda.current_device())
                if dist.get_backend() == "nccl"
                else "cpu"
            )
            sums = [
                torch.tensor(getattr(stats, field.name), device=device) for field in fields(stats)
            ]
            for tensor in sums:
                dist.all_reduce(tensor)
            stats = BinStats(*(tensor.cpu().numpy() for tensor in sums))
        return {name: float(value) for name, value in mask_metrics(stats).items()}

    def reset(self) -> None:
        """Forget everything."""
        self.stats = self._zero
