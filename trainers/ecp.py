"""Explicit confidence penalty (ECP)."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_nacl.losses import ECPLoss
from nnunet_nacl.registration.grammar import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer, given

__all__ = ["nnUNetTrainerDiceECP", "nnUNetTrainerECP"]


class nnUNetTrainerECP(CalibrationTrainer):
    """Cross-entropy less a multiple of the prediction's entropy."""

    variant = Variant("ECP")

    def build_voxelwise_loss(self, **common: Any) -> nn.Module:
        """ECP with the variant's alpha."""
        return ECPLoss(
            reduction="sum" if self.variant.sum else "mean", **given(penalty_weight=self.variant.alpha), **common
        )


class nnUNetTrainerDiceECP(nnUNetTrainerECP):
    """The same plus nnU-Net's soft Dice term."""

    variant = Variant("ECP", dice=True)
