"""Margin-based label smoothing (MbLS)."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_nacl.losses import MbLSLoss
from nnunet_nacl.registration.grammar import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer, given

__all__ = ["nnUNetTrainerDiceMbLS", "nnUNetTrainerMbLS"]


class nnUNetTrainerMbLS(CalibrationTrainer):
    """Cross-entropy plus a penalty on logits that lie more than a margin below the largest."""

    variant = Variant("MbLS")

    def build_voxelwise_loss(self, **common: Any) -> nn.Module:
        """MbLS with the variant's weight and margin."""
        return MbLSLoss(
            reduction="sum" if self.variant.sum else "mean",
            **given(penalty_weight=self.variant.penalty_weight, margin=self.variant.scale),
            **common,
        )


class nnUNetTrainerDiceMbLS(nnUNetTrainerMbLS):
    """The same plus nnU-Net's soft Dice term."""

    variant = Variant("MbLS", dice=True)
