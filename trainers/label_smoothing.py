"""Label smoothing (LS)."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_nacl.losses import LabelSmoothingLoss
from nnunet_nacl.registration.grammar import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer, given

__all__ = ["nnUNetTrainerDiceLS", "nnUNetTrainerLS"]


class nnUNetTrainerLS(CalibrationTrainer):
    """Cross-entropy against labels of which a part alpha is spread over all classes."""

    variant = Variant("LS")

    def build_voxelwise_loss(self, **common: Any) -> nn.Module:
        """Label smoothing with the variant's alpha."""
        return LabelSmoothingLoss(**given(smoothing=self.variant.alpha), **common)


class nnUNetTrainerDiceLS(nnUNetTrainerLS):
    """The same plus nnU-Net's soft Dice term."""

    variant = Variant("LS", dice=True)
