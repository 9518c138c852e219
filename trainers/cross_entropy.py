"""Trainers of plain cross-entropy: the loss is in nnunet_nacl/losses/cross_entropy.py."""

from __future__ import annotations

from nnunet_nacl.losses import CELoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerCE(CalibrationTrainer):
    """Plain cross-entropy (Murugesan et al. 2025, eq. 1), in place of nnU-Net's Dice and cross-entropy.

    ``-log p_y``. It has no settings. Compare every other loss with it: much of what a calibrating loss gains over
    nnU-Net's comes from leaving out the Dice term.

    It may cost Dice on small structures.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerCE

    A setting is changed by a token of the name, ``-tr nnUNetTrainerCE_250epochs``, or in a subclass
    (docs/losses.md, "Own trainers")::

        class nnUNetTrainerCE_ours(nnUNetTrainerCE):
            epochs = 250
    """

    loss_class = CELoss


# nnU-Net's own trainer has this loss with its Dice term. With tokens, such as nnUNetTrainerDiceCE_anneal, it is
# a subclass that variants.py makes.
