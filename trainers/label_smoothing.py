"""Trainers of LS, label smoothing: the loss is in nnunet_nacl/losses/label_smoothing.py."""

from __future__ import annotations

from nnunet_nacl.losses import LabelSmoothingLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerLS(CalibrationTrainer):
    """Label smoothing (Szegedy et al., CVPR 2016; Murugesan et al. 2025, eq. 2), in place of nnU-Net's Dice and
    cross-entropy.

    ``-sum_k q_k log p_k`` with ``q = (1 - alpha) onehot(y) + alpha / K``. Default: ``smoothing`` alpha 0.1; see
    :class:`nnunet_nacl.losses.LabelSmoothingLoss`.

    It may cost Dice on small structures, since nnU-Net's Dice term is left out.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerLS

    A setting is changed by a token of the name, ``-tr nnUNetTrainerLS_alpha0p2``, or in a subclass
    (docs/losses.md, "Own trainers")::

        class nnUNetTrainerLS_ours(nnUNetTrainerLS):
            loss_settings = {"smoothing": 0.2}
    """

    loss_class = LabelSmoothingLoss


class nnUNetTrainerDiceLS(nnUNetTrainerLS):
    """The loss of :class:`nnUNetTrainerLS` plus nnU-Net's soft Dice loss.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceLS

    ``-tr nnUNetTrainerDiceLS_anneal`` lowers the weight of the Dice term to 0 by half of the training.
    """

    with_dice = True
