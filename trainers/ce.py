"""Plain cross-entropy, and nnU-Net's own loss under our schedules: what the other trainers are to be compared with."""

from __future__ import annotations

from typing import Any

from torch import nn

from nnunet_nacl.losses import CELoss
from nnunet_nacl.registration.grammar import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer

__all__ = ["StockLossTrainer", "nnUNetTrainerCE"]


class nnUNetTrainerCE(CalibrationTrainer):
    """Cross-entropy without the Dice term.

    Much of what a calibrating loss gains over stock nnU-Net, it gains by leaving out Dice: compare with this one.
    """

    variant = Variant("CE")

    def build_voxelwise_loss(self, **common: Any) -> nn.Module:
        """Cross-entropy."""
        return CELoss(**common)


class StockLossTrainer(CalibrationTrainer):
    """Base of ``nnUNetTrainerDiceCE_<token>``: nnU-Net's own loss object, with another schedule only."""

    variant = Variant("CE", dice=True)

    def _replace_loss(self, stock: nn.Module) -> nn.Module:
        return stock
