"""Focal loss."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_nacl.losses import FocalLoss
from nnunet_nacl.registration.grammar import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer, given

__all__ = ["nnUNetTrainerDiceFocal", "nnUNetTrainerFocal"]


class nnUNetTrainerFocal(CalibrationTrainer):
    """Cross-entropy whose voxels weigh the less the surer the prediction is of the truth."""

    variant = Variant("Focal")

    def build_voxelwise_loss(self, **common: Any) -> nn.Module:
        """Focal loss with the variant's gamma."""
        return FocalLoss(**given(gamma=self.variant.gamma), **common)


class nnUNetTrainerDiceFocal(nnUNetTrainerFocal):
    """The same plus nnU-Net's soft Dice term."""

    variant = Variant("Focal", dice=True)
