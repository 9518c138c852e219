"""Calibration errors of a stream of batches, in the training loop or in several processes."""

from __future__ import annotations

from dataclasses import fields

import torch
import torch.distributed as dist
from torch import Tensor

from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.metrics.calibration_error import mask_metrics
from nnunet_nacl.metrics.counting import BUILT_IN_MASKS, count_masks


class CalibrationMetric:
    """Calibration errors of everything seen so far, in a few kilobytes.

    Its life cycle is that of a torchmetrics metric. With torch.distributed initialised,
    :meth:`compute` adds the sums of all ranks first; every rank must call it.

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
        fewest_channels = 1 if regions else 2
        if not isinstance(num_classes, int) or num_classes < fewest_channels:
            raise ValueError(
                f"num_classes must be an integer of at least {fewest_channels},"
                f" got {num_classes!r}."
            )
        self.mask = mask
        self.regions = regions
        self.ignore_label = ignore_label
        self.from_logits = from_logits
        self._zero = BinStats.zeros(num_classes, n_bins=n_bins, regions=regions)
        self.stats = self._zero

    def update(self, prediction: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch; ValueError where shapes or values do not fit.

        Args:
            prediction: (B, K, *spatial), or (B, K) for a classifier.
            target: Classes: (B, *spatial) or (B, 1, *spatial) labels. Regions: (B, R, *spatial).
            valid: (B, *spatial) or (B, 1, *spatial), False where a voxel is ignored.
        """
        num_channels = self._zero.num_classes
        shape = tuple(prediction.shape)
        if shape[1:2] != (num_channels,) or not prediction.is_floating_point():
            raise ValueError(
                f"prediction must be floating point, (B, {num_channels}, *spatial), got"
                f" {prediction.dtype} {shape}."
            )
        # The channels come first: (K, B, *spatial), the batch is one more spatial axis.
        prediction = prediction.detach().transpose(0, 1)
        if target.ndim == prediction.ndim:
            target = target.transpose(0, 1)
        if valid is not None and valid.ndim == prediction.ndim:
            valid = valid.transpose(0, 1)
        stats_by_mask = count_masks(
            self._to_probs(prediction),
            target,
            valid=valid,
            ignore_label=self.ignore_label,
            regions=self.regions,
            n_bins=self._zero.n_bins,
        )
        self.stats = self.stats + stats_by_mask[self.mask]

    def _to_probs(self, prediction: Tensor) -> Tensor:
        """Probabilities of a prediction whose channels come first."""
        if not self.from_logits:
            return prediction
        if prediction.dtype != torch.float64:
            prediction = prediction.float()
        return torch.sigmoid(prediction) if self.regions else torch.softmax(prediction, 0)

    def __call__(
        self, prediction: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> dict[str, float]:
        """Add a batch, and return the metrics of it alone, as :meth:`update` and :meth:`compute`
        would."""
        before = self.stats
        self.stats = self._zero
        try:
            self.update(prediction, target, valid)
            result = self.compute()
        finally:
            self.stats = before + self.stats
        return result

    def to(self, device: str | torch.device) -> CalibrationMetric:
        """Itself: batches are taken from any device, and the sums, a few kilobytes, stay on the
        CPU."""
        return self

    def compute(self) -> dict[str, float]:
        """The metrics of everything seen by all ranks: n_voxels, and those of ``MASK_METRICS`` by
        name."""
        has_ranks = dist.is_available() and dist.is_initialized()
        stats = _add_ranks(self.stats) if has_ranks else self.stats
        return {name: float(value) for name, value in mask_metrics(stats).items()}

    def reset(self) -> None:
        """Forget everything."""
        self.stats = self._zero


def _add_ranks(stats: BinStats) -> BinStats:
    # NCCL moves GPU tensors only; Gloo takes both
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    sums = {}
    for field in fields(stats):
        tensor = torch.tensor(getattr(stats, field.name), device=device)
        dist.all_reduce(tensor)
        sums[field.name] = tensor.cpu().numpy()
    return BinStats(**sums)
