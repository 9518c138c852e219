"""Spatially varying label smoothing (SVLS)."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_nacl.losses import SVLSLoss
from nnunet_nacl.registration.grammar import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer, given

__all__ = ["nnUNetTrainerDiceSVLS", "nnUNetTrainerSVLS"]


class nnUNetTrainerSVLS(CalibrationTrainer):
    """Cross-entropy against labels smoothed by a Gaussian over the neighbourhood (paper, eq. 3)."""

    variant = Variant("SVLS")

    def build_voxelwise_loss(self, **common: Any) -> nn.Module:
        """SVLS on the plans' neighbourhood."""
        return SVLSLoss(kernel_size=self.neighborhood_size(), **given(sigma=self.variant.sigma), **common)


class nnUNetTrainerDiceSVLS(nnUNetTrainerSVLS):
    """The same plus nnU-Net's soft Dice term."""

    variant = Variant("SVLS", dice=True)
