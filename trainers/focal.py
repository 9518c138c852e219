"""Trainers of the focal loss: the loss is in nnunet_nacl/losses/focal.py."""

from __future__ import annotations

from nnunet_nacl.losses import FocalLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerFocal(CalibrationTrainer):
    """Focal loss (Lin et al., ICCV 2017), in place of nnU-Net's Dice and cross-entropy.

    ``-(1 - p_y)^gamma log p_y``: voxels that are right count less. Default: ``gamma`` 3; see
    :class:`nnunet_nacl.losses.FocalLoss`.

    It may cost Dice on small structures, since nnU-Net's Dice term is left out.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerFocal

    A setting is changed by a token of the name, ``-tr nnUNetTrainerFocal_gamma2``, or in a subclass
    (docs/losses.md, "Own trainers")::

        class nnUNetTrainerFocal_ours(nnUNetTrainerFocal):
            loss_settings = {"gamma": 2.0}
    """

    loss_class = FocalLoss


class nnUNetTrainerDiceFocal(nnUNetTrainerFocal):
    """The loss of :class:`nnUNetTrainerFocal` plus nnU-Net's soft Dice loss.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceFocal

    ``-tr nnUNetTrainerDiceFocal_anneal`` lowers the weight of the Dice term to 0 by half of the training.
    """

    with_dice = True
