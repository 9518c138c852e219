"""Trainers of NACL, neighbour-aware calibration: the loss is in nnunet_nacl/losses/nacl.py."""

from __future__ import annotations

from nnunet_nacl.losses import NACLLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerNACL(CalibrationTrainer):
    """Cross-entropy and NACL's penalty (Murugesan et al. 2025, eq. 9), in place of nnU-Net's Dice and cross-entropy.

    ``-log p_y + lambda mean_k |m tau_k - l_k|``: the penalty ties the logits l of a voxel to the class shares tau
    of its neighbourhood. Defaults: ``penalty_weight`` lambda 0.1, ``kernel_size`` 3 (1 along axes with thick
    slices), ``prior`` mean, ``penalty`` l1, ``prior_scale`` m 1; all are described in
    :class:`nnunet_nacl.losses.NACLLoss`.

    It may cost Dice on small structures, since nnU-Net's Dice term is left out, and it lowers confidence in plain
    background as well.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerNACL

    A setting is changed by a token of the name, ``-tr nnUNetTrainerNACL_lambda0p2_k5``, or in a subclass
    (docs/losses.md, "Own trainers")::

        class nnUNetTrainerNACL_ours(nnUNetTrainerNACL):
            loss_settings = {"penalty_weight": 0.2, "kernel_size": 5}
    """

    loss_class = NACLLoss


class nnUNetTrainerDiceNACL(nnUNetTrainerNACL):
    """The loss of :class:`nnUNetTrainerNACL` plus nnU-Net's soft Dice loss.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceNACL

    ``-tr nnUNetTrainerDiceNACL_anneal`` lowers the weight of the Dice term to 0 by half of the training.
    """

    with_dice = True
