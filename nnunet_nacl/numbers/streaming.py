"""Calibration of a stream of batches, for training loops outside nnU-Net."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nnunet_nacl.numbers.binning import DEFAULT_N_BINS, BinStats
from nnunet_nacl.numbers.calibration_error import mask_metrics
from nnunet_nacl.numbers.counting import BUILT_IN_MASKS, count_masks


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
        """Add what another metric of the same kind has seen."""
        self.stats = self.stats + other.stats

    def state_dict(self) -> dict[str, Tensor]:
        """The sums as tensors, for a checkpoint."""
        return {field.name: torch.as_tensor(getattr(self.stats, field.name)) for field in fields(self.stats)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore :meth:`state_dict`."""
        self.stats = self._zero + BinStats(*(state[field.name].cpu().numpy() for field in fields(BinStats)))
