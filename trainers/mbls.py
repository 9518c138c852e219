"""Trainers of MbLS, margin-based label smoothing: the loss is in nnunet_nacl/losses/mbls.py."""

from __future__ import annotations

from nnunet_nacl.losses import MbLSLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerMbLS(CalibrationTrainer):
    """Margin-based label smoothing (Liu et al., CVPR 2022), in place of nnU-Net's Dice and cross-entropy.

    ``-log p_y + lambda mean_k relu(max_j l_j - l_k - m)``: logits l may differ by at most the margin m without a
    penalty. Defaults: ``penalty_weight`` lambda 0.1, ``margin`` m 5, ``class_reduction`` mean; see
    :class:`nnunet_nacl.losses.MbLSLoss`.

    It may cost Dice on small structures, since nnU-Net's Dice term is left out.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerMbLS

    A setting is changed by a token of the name, ``-tr nnUNetTrainerMbLS_m10``, or in a subclass
    (docs/losses.md, "Own trainers")::

        class nnUNetTrainerMbLS_ours(nnUNetTrainerMbLS):
            loss_settings = {"margin": 10.0}
    """

    loss_class = MbLSLoss


class nnUNetTrainerDiceMbLS(nnUNetTrainerMbLS):
    """The loss of :class:`nnUNetTrainerMbLS` plus nnU-Net's soft Dice loss.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceMbLS

    ``-tr nnUNetTrainerDiceMbLS_anneal`` lowers the weight of the Dice term to 0 by half of the training.
    """

    with_dice = True
