"""Focal loss in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import FocalLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerFocal(CalibrationTrainer):
    """Focal loss, -(1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 4).

    Defaults: gamma 3.

    Costs: probabilities become less sure everywhere, in plain background too, so that the error
    over all voxels may rise. Without nnU-Net's Dice term the Dice of small structures may fall;
    compare with ``nnUNetTrainerCE``. An iteration takes about as long as nnU-Net's.

    Train it::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerFocal

    Change a setting by name, or by a subclass (docs/losses.md, "Own trainers")::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerFocal_gamma2

        class nnUNetTrainerFocal_ours(nnUNetTrainerFocal):
            loss_settings = {"gamma": 2.0}
            epochs = 250

    """

    loss_class = FocalLoss


class nnUNetTrainerDiceFocal(nnUNetTrainerFocal):
    """Focal loss (Lin et al. 2017, eq. 4), plus nnU-Net's Dice term.

    Defaults: those of :class:`nnUNetTrainerFocal`, the soft Dice loss with weight 1, and nnU-Net's
    own start, since the Dice term finds small structures. ``anneal`` in the name, or ``anneal_dice
    = True`` in a subclass, lets the weight of the Dice term fall to 0 by half-time.

    Costs: the Dice term makes networks overconfident, as in nnU-Net's own loss.

    Train it, or change a setting by name or by a subclass::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceFocal
        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceFocal_anneal_gamma2

        class nnUNetTrainerDiceFocal_ours(nnUNetTrainerDiceFocal):
            anneal_dice = True
            loss_settings = {"gamma": 2.0}

    """

    with_dice = True
