"""Trainers of ECP, an entropy penalty: the loss is in nnunet_nacl/losses/ecp.py."""

from __future__ import annotations

from nnunet_nacl.losses import ECPLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerECP(CalibrationTrainer):
    """Cross-entropy and a penalty on confident outputs (Pereyra et al., ICLR workshop 2017), in place of nnU-Net's
    Dice and cross-entropy.

    ``-log p_y - alpha mean_k (-p_k log p_k)``: a high entropy is rewarded. Defaults: ``penalty_weight`` alpha 0.1,
    ``class_reduction`` mean; see :class:`nnunet_nacl.losses.ECPLoss`.

    It may cost Dice on small structures, since nnU-Net's Dice term is left out.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerECP

    A setting is changed by a token of the name, ``-tr nnUNetTrainerECP_alpha0p3``, or in a subclass
    (docs/losses.md, "Own trainers")::

        class nnUNetTrainerECP_ours(nnUNetTrainerECP):
            loss_settings = {"penalty_weight": 0.3}
    """

    loss_class = ECPLoss


class nnUNetTrainerDiceECP(nnUNetTrainerECP):
    """The loss of :class:`nnUNetTrainerECP` plus nnU-Net's soft Dice loss.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceECP

    ``-tr nnUNetTrainerDiceECP_anneal`` lowers the weight of the Dice term to 0 by half of the training.
    """

    with_dice = True
