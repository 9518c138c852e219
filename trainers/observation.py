"""Looks at logits on their way into the loss and adds up what tells of calibration.

Everything stays on the device of the logits until the epoch ends. No operation here has a result whose size depends on
the data, so that a GPU is never waited for.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics.binning import DEFAULT_N_BINS
from nnunet_nacl.training_record import FLOATS, GROUPS, EpochSums, MaxLogitBins

_UNCOUNTED = GROUPS  # group of the voxels that are ignored; it is dropped in the end
_LANES = 128  # copies of each counter on a GPU: most voxels belong to the same one, and would wait for each other
_BLOCK = 1024  # voxels whose logits are added in single precision before double precision takes over
_CHUNK_CPU, _CHUNK_GPU = 1 << 18, 1 << 23  # logits at a time: a core's cache, or some hundred megabytes of a GPU


class LogitObserver:
    """Sums of the batches since :meth:`start`.

    Args:
        label_space: How targets are to be read.
        num_channels: K classes with the background, or R regions.
    """

    def __init__(self, label_space: LabelSpace, num_channels: int) -> None:
        self._space = label_space
        self._num_channels = num_channels
        self._bins = MaxLogitBins()
        self._sums: dict[str, Tensor] | None = None

    def __repr__(self) -> str:
        return f"LogitObserver({self._num_channels} channels, {self._space})"

    def start(self) -> None:
        """Forget everything."""
        self._sums = None

    def observe(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor]) -> None:
        """Add a batch, as nnU-Net gives it to its loss: of several resolutions the first, highest one is looked at.

        Args:
            output: (B, K, *spatial) logits of any floating type, or a list of them.
            target: Targets of the same resolutions. They are not changed.
        """
        logits = (output if isinstance(output, Tensor) else output[0]).detach()
        target = target if isinstance(target, Tensor) else target[0]
        if logits.device.type not in ("cpu", "cuda"):  # Apple's GPUs have no double precision
            logits, target = logits.cpu(), target.cpu()
        read = self._space.read(logits, target, check_labels=False)
        if self._sums is None:
            self._sums = self._zeros(logits.device)
        labels = (read.labels if self._space.regions else read.labels[:, None]).flatten(2)
        valid = None if read.valid is None else read.valid[:, None].flatten(2)
        # Under autocast products would be taken in half precision.
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            for samples, voxels in self._chunks(logits):
                where = samples, slice(None), voxels
                part = logits.flatten(2)[where]
                part = part if part.dtype == torch.float64 else part.float()
                self._add(self._sums, part, labels[where], None if valid is None else valid[where])

    def fetch(self) -> EpochSums | None:
        """The sums so far, on the CPU, or None if nothing was seen."""
        if self._sums is None:
            return None
        values = {name: value.cpu().numpy() for name, value in self._sums.items()}
        for name in ("count", "correct", "confidence", "max_logit_count", "max_logit_sum"):
            values[name] = values[name][:, :GROUPS]
        return EpochSums(**values)

    def _zeros(self, device: torch.device) -> dict[str, Tensor]:
        bins = {"groups": GROUPS + 1, "max_logit_bins": self._bins.number}
        shapes = EpochSums.shapes(self._space.regions, self._num_channels, **bins)
        kinds = {name: torch.float64 if name in FLOATS else torch.int64 for name in shapes}
        return {name: torch.zeros(shape, dtype=kinds[name], device=device) for name, shape in shapes.items()}

    def _chunks(self, logits: Tensor) -> Iterator[tuple[slice, slice]]:
        limit = _CHUNK_CPU if _on_cpu(logits) else _CHUNK_GPU
        batch, channels, size = logits.shape[0], logits.shape[1], logits.shape[2:].numel()
        samples, voxels = max(1, limit // (channels * max(1, size))), max(1, limit // channels)
        for first in range(0, batch, samples):
            for start in range(0, size, voxels):
                yield slice(first, first + samples), slice(start, start + voxels)

    def _add(self, sums: dict[str, Tensor], logits: Tensor, truth: Tensor, valid: Tensor | None) -> None:
        """Add to the sums (b, K, n) logits, (b, 1, n) labels or (b, R, n) region maps, and (b, 1, n) valid or None."""
        finite = logits.sum(1, keepdim=True).isfinite()
        counted = finite if valid is None else finite & valid
        sums["not_finite"] += (~finite if valid is None else ~finite & valid).sum()
        logits = torch.where(finite, logits, 0)  # what is not finite could not even be multiplied by 0
        if self._space.regions:
            truth = truth != 0
            probs = logits.double().sigmoid()  # not in place: double() of float64 are the logits themselves
            inside = probs > 0.5
            confidence, correct, max_logit = torch.where(inside, probs, 1 - probs), inside == truth, logits.abs()
            foreground, predicted = truth.any(1, keepdim=True), inside.any(1, keepdim=True)
            members = torch.cat([~foreground, truth], 1)
        else:
            confidence, winner = logits.softmax(1).max(1, keepdim=True)
            correct, max_logit = winner == truth, logits.amax(1, keepdim=True)
            foreground, predicted = truth != 0, winner != 0
            members = truth == torch.arange(self._num_channels, device=logits.device)[:, None]
        group = torch.where(counted, foreground.long() + 2 * predicted.long(), _UNCOUNTED)
        row = torch.arange(confidence.shape[1], device=logits.device)[:, None] * (GROUPS + 1) + group
        edges = torch.arange(1, DEFAULT_N_BINS, dtype=torch.float64, device=logits.device) / DEFAULT_N_BINS
        key = row * DEFAULT_N_BINS + torch.bucketize(confidence, edges.to(confidence.dtype))  # bins (lo, hi]
        bins = self._bins
        max_logit_bin = ((max_logit - bins.low) / bins.width).floor_().add_(1).clamp_(0, bins.number - 1).long()
        _add_at(sums["count"], key)
        _add_at(sums["correct"], key, correct.long())
        _add_at(sums["confidence"], key, confidence.double())
        _add_at(sums["max_logit_count"], row * bins.number + max_logit_bin)
        _add_at(sums["max_logit_sum"], row, max_logit.double())
        members = members & counted
        sums["class_count"] += members.sum((0, 2))
        sums["logit_sum"] += _sums_by_class(members, logits)


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _add_at(target: Tensor, key: Tensor, weights: Tensor | None = None) -> None:
    """target.flat[key] += weights (or 1), duplicates included."""
    key, size = key.flatten(), target.numel()
    if _on_cpu(key):
        weights = None if weights is None else weights.flatten()
        target += torch.bincount(key, weights, minlength=size).view_as(target).to(target.dtype)
        return
    # bincount would make the host wait for the GPU: it looks for the largest key
    lane = torch.arange(key.numel(), device=key.device) % _LANES
    weights = torch.ones_like(key) if weights is None else weights.flatten()
    spread = torch.zeros(size * _LANES, dtype=target.dtype, device=key.device)
    spread.scatter_add_(0, key * _LANES + lane, weights.to(target.dtype))
    target += spread.view(size, _LANES).sum(1).view_as(target)


def _sums_by_class(members: Tensor, logits: Tensor) -> Tensor:
    """(C, K) float64 sums of the logit vectors (b, K, n) of the voxels that are members (b, C, n) of each class."""
    members = members.to(logits.dtype)
    whole = logits.shape[2] // _BLOCK * _BLOCK
    parts = [(members[..., whole:], logits[..., whole:])]
    if whole:
        blocks = [values[..., :whole].unflatten(2, (-1, _BLOCK)).transpose(1, 2) for values in (members, logits)]
        parts.append((blocks[0].flatten(0, 1), blocks[1].flatten(0, 1)))
    return torch.stack([(a @ b.transpose(1, 2)).sum(0, dtype=torch.float64) for a, b in parts]).sum(0)
