"""Plain cross-entropy, and nnU-Net's own loss under other schedules."""

from __future__ import annotations

from torch import nn

from nnunet_nacl.losses import CELoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerCE(CalibrationTrainer):
    """Plain cross-entropy, -log p_y (Murugesan et al. 2025, eq. 1).

    Defaults: the loss has no settings; the schedule is nnU-Net's.

    Much of what calibrating losses gain over nnU-Net's is gained by this one already: always
    compare with it.

    Other settings, by name: ``nnUNetTrainerCE_250epochs_nomirror``; by a subclass: ``mirroring
    = False`` and ``epochs = 250``.
    """

    loss_class = CELoss


class nnUNetTrainerDiceCE(nnUNetTrainerCE):
    """nnU-Net's own Dice and cross-entropy loss, bit for bit, under other schedules.

    Calibration is logged as by all trainers here. It stands for names with tokens, and is there to
    be subclassed: without tokens this loss is nnU-Net's own ``nnUNetTrainer``, so there is no ``-tr
    nnUNetTrainerDiceCE``.

    Other settings, by name: ``nnUNetTrainerDiceCE_anneal_250epochs``; by a subclass: ``anneal_dice
    = True`` and ``epochs = 250``.
    """

    with_dice = True

    def _replace_loss(self, stock_loss: nn.Module) -> nn.Module:
        """nnU-Net's own loss stays. (With an ignore label it sums its cross-entropy over regions;
        ours averages.)"""
        return stock_loss
