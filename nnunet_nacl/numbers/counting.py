"""Counts the calibration sums of all masks of a case in one pass, and those of a stream of batches.

Masks overlap, but voxels fall into few disjoint groups (truth foreground x predicted foreground x each further mask),
and every mask is a sum of groups. Most voxels are plain: labelled background, in no mask, the background's probability
in the top bin and all others, or those of all regions, in the lowest. Of them only sums of distances from the truth are
needed: 1 - p_0 and p_k for classes, p_r for regions. Sums are in double precision but for these distances in large
cases, float32 in blocks of 256: metrics of all voxels but NLL change by some 1e-9, those of the masks not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nnunet_nacl.losses.label_space import LabelSpace
from nnunet_nacl.numbers.binning import (
    DEFAULT_N_BINS,
    SUM_TOLERANCE,
    AnyArray,
    BinStats,
    bin_index,
    check_chunk,
    parts,
    read_probs,
    read_tensor,
    where_true,
)
from nnunet_nacl.numbers.calibration_error import mask_metrics

BUILT_IN_MASKS = ("all", "foreground", "predicted", "union")

_MAX_EXTRA_MASKS = 5
_CPU_PROBABILITIES = 1 << 20  # at a time
EXACT_BELOW = 1 << 23  # probabilities of a case that is summed in double precision throughout
_BLOCK = 256  # so many numbers between 1/2 and 1 have a product that is far from the smallest double
_BATCH = 1 << 18  # probabilities that are counted one by one together: they stay in the cache
_SLACK = 1e-3  # how far a plain voxel's probabilities stay from the bin edges
_SMALLEST = float(torch.finfo(torch.float32).tiny)
# bits of a group's number: in the true foreground, in the predicted foreground, in each further mask
_TRUTH, _PREDICTED, _FIRST_EXTRA = 0, 1, 2


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

    The confidence of a voxel is the probability of the label that is delivered, most probable or not.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region probabilities; any
            floating type, any device (where that has no double precision, Apple's MPS, a copy on the CPU is counted).
        truth: (*spatial) or (1, *spatial) class indices 0..K-1; with ``regions`` (R, *spatial) booleans or 0/1.
        segmentation: Labels that are delivered, of the shape of the truth. None: the most probable ones, the lower
            class of equals (regions: above 0.5).
        extra_masks: Further masks by name, each (*spatial) boolean; at most five.
        valid: (*spatial) boolean, False where a voxel is ignored; such voxels are in no mask.
        ignore_label: Label in ``truth`` that marks ignored voxels (classes only).
        regions: Whether the probabilities are those of sigmoid regions.
        n_bins: Number of equal bins.
        weights: (*spatial) how many voxels each one stands for, as in a sample; None: one each.

    Returns:
        Sums on the CPU by mask: ``all`` voxels, ``foreground`` (the truth is not background, or inside any region),
        ``predicted`` (the delivered label is not), ``union`` (either), and the further ones.

    Raises:
        ValueError: Shapes do not fit, a label is none of the classes, or probabilities are not probabilities.
    """
    extra = extra_masks or {}
    if built_in := extra.keys() & set(BUILT_IN_MASKS):
        raise ValueError(f"The mask {min(built_in)!r} is built in and cannot be given; use another name.")
    if len(extra) > _MAX_EXTRA_MASKS:
        raise ValueError(f"At most {_MAX_EXTRA_MASKS} extra masks are possible, got {len(extra)}.")
    if ignore_label is not None and regions:
        raise ValueError("ignore_label has no meaning with regions=True: give the mask of known voxels as valid.")
    probs = read_tensor(probs, "probs")
    probs = read_probs(probs.cpu() if probs.device.type == "mps" else probs, regions)  # it lacks double precision
    spatial, device = tuple(probs.shape[1:]), probs.device
    delivered = None if segmentation is None else _read_labels(segmentation, probs, LabelSpace(regions))[0]
    valid = None if valid is None else _read_mask(valid, "valid", spatial, device)
    truth, valid = _read_labels(truth, probs, LabelSpace(regions, ignore_label), valid)
    masks = [_read_mask(mask, f"mask {name!r}", spatial, device) for name, mask in extra.items()]
    flat = probs.reshape(len(probs), -1)
    if weights is not None:
        weights = torch.as_tensor(weights, device=device).double().flatten()
        if len(weights) != flat.shape[1]:
            raise ValueError(f"one weight per voxel is needed, got {len(weights)} for {flat.shape[1]}.")
    zero = BinStats.zeros(len(flat), n_bins=n_bins, regions=regions)
    sums = _GroupSums(list(extra), zero, regions, flat.numel() < EXACT_BELOW, device)
    step = max(1 << 12, _CPU_PROBABILITIES // len(flat) // _BLOCK * _BLOCK) if device.type == "cpu" else 1 << 22
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
            labels, share = (None if x is None else x[..., part][..., keep] for x in (delivered, weights))
            sums.add(chunk, truth[..., part][..., keep], [mask[part][keep] for mask in masks], labels, share)
    return sums.by_mask()


def _read_labels(
    labels: AnyArray, probs: Tensor, space: LabelSpace, valid: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """(N,) class indices or (R, N) booleans, checked, and (N,) booleans of what is valid, None where everything is."""
    spatial = tuple(probs.shape[1:])
    labels = read_tensor(labels, "truth").to(probs.device)
    shapes = [tuple(probs.shape)] if space.regions else [spatial, (1, *spatial)]
    if tuple(labels.shape) not in shapes:
        raise ValueError(f"truth must have the shape of probs, {shapes[0]}, got {tuple(labels.shape)}.")
    labels = labels.reshape(*[len(probs)] * space.regions, -1)
    if valid is not None:
        labels = torch.where(valid, labels, 0)  # where it is not it may hold anything
    target = space.read(probs.reshape(1, len(probs), -1), labels[None])
    if target.valid is not None:
        valid = target.valid[0] if valid is None else valid & target.valid[0]
    return target.labels[0].bool() if space.regions else target.labels[0], valid


def _read_mask(mask: AnyArray, name: str, spatial: tuple[int, ...], device: torch.device) -> Tensor:
    mask = read_tensor(mask, name).to(device)
    if tuple(mask.shape) not in (spatial, (1, *spatial)):
        raise ValueError(f"{name} must have the spatial shape of probs, {spatial}, got {tuple(mask.shape)}.")
    return (mask if mask.dtype == torch.bool else mask != 0).reshape(-1)


class _GroupSums:
    """Sums of disjoint groups of voxels; with ``exact`` plain ones are summed in double precision, too."""

    def __init__(self, extra: Sequence[str], zero: BinStats, regions: bool, exact: bool, device: torch.device) -> None:
        self._extra, self._n_bins, self._regions, self._exact = extra, zero.n_bins, regions, exact
        arrays = {field.name: torch.as_tensor(getattr(zero, field.name), device=device) for field in fields(zero)}
        groups = 1 << (_FIRST_EXTRA + len(extra))
        self._sums = {name: array.double().repeat(groups, *[1] * array.ndim) for name, array in arrays.items()}

    def by_mask(self) -> dict[str, BinStats]:
        """Sums of every mask, from those of the groups in it."""
        groups = np.arange(len(self._sums["count"]))
        truth, predicted, *extra = ((groups >> bit & 1).astype(bool) for bit in range(_FIRST_EXTRA + len(self._extra)))
        chosen = {"all": groups >= 0, "foreground": truth, "predicted": predicted, "union": truth | predicted}
        chosen |= dict(zip(self._extra, extra))
        arrays = [sums.cpu().numpy() for sums in self._sums.values()]
        return {name: BinStats(*(array[which].sum(axis=0) for array in arrays)) for name, which in chosen.items()}

    def add(
        self, probs: Tensor, truth: Tensor, masks: list[Tensor], segmentation: Tensor | None, weights: Tensor | None
    ) -> None:
        """Add voxels: (K, n) probabilities, (n,) labels or (R, n) booleans, and (n,) booleans and weights."""
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
            self._add_singly(probs.index_select(1, place), truth.index_select(-1, place), labels, group, share)
        if len(where) < probs.shape[1]:
            self._add_plain(probs.double() if self._exact else probs, ~special)

    def _add_singly(
        self, probs: Tensor, truth: Tensor, labels: Tensor | None, group: Tensor, weights: Tensor | None
    ) -> None:
        """Voxels that are not plain; ``group`` lacks the bit of the predicted foreground."""
        double, rows = probs.double(), torch.arange(len(probs), device=probs.device)[:, None]
        if self._regions:
            inside = probs > 0.5 if labels is None else labels.bool()
            foreground, right = inside.any(0), inside == truth
            confidence, of_truth = torch.where(inside, double, 1 - double), torch.where(truth, double, 1 - double)
            brier = 2 * (1 - of_truth).square()
        else:
            truth = truth.long()[None]
            winner = probs.max(0, keepdim=True)[1] if labels is None else labels.long()[None]
            confidence, of_truth = probs.gather(0, winner), double.gather(0, truth)
            foreground, right = winner[0] != 0, winner == truth
            brier = double.square().sum(0) + 1 - 2 * of_truth

        def add(name: str, key: Tensor, values: Tensor | None = None, among: Tensor | None = None) -> None:
            if weights is not None:
                share = weights.expand(key.shape)
                values = share if values is None else values * share
            if among is not None:
                key, values = key[among], None if values is None else values[among]
            flat = self._sums[name].view(-1)  # the same place may come twice
            values = None if values is None else values.reshape(-1).double()
            flat += torch.bincount(key.reshape(-1), weights=values, minlength=flat.numel())

        group = group | foreground.long() << _PREDICTED
        row = group * len(of_truth) + rows[: len(of_truth)]
        key = row * self._n_bins + bin_index(confidence, self._n_bins)
        add("count", key)
        add("confidence", key, confidence)
        add("correct", key, among=right)
        add("nll", row, -of_truth.clamp_min(_SMALLEST).log())
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
        whole = distance.shape[1] // _BLOCK * _BLOCK
        for part in (distance[:, :whole].unflatten(1, (-1, _BLOCK)), distance[:, None, whole:]):
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
            sums[name][:first, -1] += value  # the background's of_truth probability lies in the top bin
        sums["nll"] -= torch.stack([_sum_of_logs(1 - row.double()) for row in distance[:rows]])
        sums["brier"] += 2 * squares if self._regions else squares.sum()


def _sum_of_logs(values: Tensor) -> Tensor:
    """Sum of the logarithms of values between 1/2 and 1; few logarithms are taken, of products."""
    whole = len(values) // _BLOCK * _BLOCK
    return values[:whole].view(_BLOCK, -1).prod(0).log_().sum() + values[whole:].log().sum()


class CalibrationMetric:
    """Calibration errors of everything seen so far, in a few kilobytes, with the life cycle of a torchmetrics metric.

    With torch.distributed initialised, :meth:`compute` adds the sums of all ranks first; every rank must call it.

    Args:
        num_classes: K classes with the background, or R regions.
        mask: ``all``, ``foreground``, ``predicted`` or ``union``, see ``count_masks``.
        regions: Whether the heads are sigmoid regions.
        ignore_label: Label of voxels to leave out (classes only).
        n_bins: Number of confidence bins.
        from_logits: Whether :meth:`update` gets logits rather than probabilities.

    Raises:
        ValueError: An argument is none of these.

    Example:
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
            raise ValueError(f"num_classes must be an integer of at least {least}, got {num_classes!r}.")
        self.mask, self.regions, self.ignore_label, self.from_logits = mask, regions, ignore_label, from_logits
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
                f"prediction must be floating point, (B, {channels}, *spatial), got {prediction.dtype} {shape}."
            )
        # (K, B, *spatial): the batch is one more spatial axis
        probs = prediction.detach().transpose(0, 1)
        target = target.transpose(0, 1) if target.ndim == prediction.ndim else target
        valid = valid.transpose(0, 1) if valid is not None and valid.ndim == prediction.ndim else valid
        if self.from_logits:
            probs = probs if probs.dtype == torch.float64 else probs.float()
            probs = torch.sigmoid(probs) if self.regions else torch.softmax(probs, 0)
        options: Any = {"ignore_label": self.ignore_label, "regions": self.regions, "n_bins": self._zero.n_bins}
        self.stats = self.stats + count_masks(probs, target, valid=valid, **options)[self.mask]

    def __call__(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> dict[str, float]:
        """Add a batch, and return the metrics of it alone, as :meth:`update` and :meth:`compute` would."""
        before, self.stats = self.stats, self._zero
        try:
            self.update(prediction, target, valid)
            result = self.compute()
        finally:
            self.stats = before + self.stats
        return result

    def to(self, device: Any) -> CalibrationMetric:
        """Itself: batches are taken from any device, and the sums, a few kilobytes, stay on the CPU."""
        return self

    def compute(self) -> dict[str, float]:
        """The metrics of everything seen by all ranks: n_voxels, and those of ``MASK_METRICS`` by name."""
        stats = self.stats
        if dist.is_available() and dist.is_initialized():  # NCCL moves GPU tensors only, Gloo takes both
            device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
            sums = [tensor.clone().to(device) for tensor in self.state_dict().values()]
            for tensor in sums:
                dist.all_reduce(tensor)
            stats = BinStats(*(tensor.cpu().numpy() for tensor in sums))
        return {name: float(value) for name, value in mask_metrics(stats).items()}

    def reset(self) -> None:
        """Forget everything."""
        self.stats = self._zero

    def merge_state(self, other: CalibrationMetric) -> None:
        """Add what another metric, of these classes and bins, has seen."""
        self.stats = self.stats + other.stats

    def state_dict(self) -> dict[str, Tensor]:
        """The sums as tensors, for a checkpoint."""
        return {field.name: torch.as_tensor(getattr(self.stats, field.name)) for field in fields(self.stats)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        self.stats = self._zero + BinStats(*(state[field.name].cpu().numpy() for field in fields(BinStats)))
