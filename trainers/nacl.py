"""Neighbour-aware calibration (NACL)."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_nacl.losses import NACLLoss
from nnunet_nacl.registration.grammar import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer, given

__all__ = ["nnUNetTrainerDiceNACL", "nnUNetTrainerNACL"]


class nnUNetTrainerNACL(CalibrationTrainer):
    """Cross-entropy plus lambda times the distance between logits and neighbourhood shares (paper, eq. 9)."""

    variant = Variant("NACL")

    def build_voxelwise_loss(self, **common: Any) -> nn.Module:
        """NACL on the plans' neighbourhood."""
        variant = self.variant
        return NACLLoss(
            kernel_size=self.neighborhood_size(),
            penalty="l2" if variant.l2 else "l1",
            space="softmax" if variant.softmax else "logits",
            reduction="sum" if variant.sum else "mean",
            **given(
                penalty_weight=variant.penalty_weight,
                prior=variant.prior,
                sigma=variant.sigma,
                prior_scale=variant.scale,
            ),
            **common,
        )


class nnUNetTrainerDiceNACL(nnUNetTrainerNACL):
    """The same plus nnU-Net's soft Dice term."""

    variant = Variant("NACL", dice=True)
