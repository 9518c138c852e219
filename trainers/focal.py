"""Focal loss in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import FocalLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerFocal(CalibrationTrainer):
    """Focal loss, -(1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 4).

    Defaults: gamma 3.

    Costs: probabilities become less sure everywhere, in plain background too, so that the error
    over all voxels may rise.

    Other settings, by name: ``nnUNetTrainerFocal_gamma2``; by a subclass: ``loss_settings =
    {"gamma": 2.0}``.
    """

    loss_class = FocalLoss


class nnUNetTrainerDiceFocal(nnUNetTrainerFocal):
    """The same loss plus nnU-Net's Dice term, see :class:`CalibrationTrainer`."""

    with_dice = True
