"""Trainers of ACE, the average calibration error: the loss is in nnunet_nacl/losses/ace.py."""

from __future__ import annotations

from nnunet_nacl.losses import ACELoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerACE(CalibrationTrainer):
    """Cross-entropy and the average calibration error of each class (Barfoot et al. 2025, arXiv 2506.03942, mL1-ACE),
    in place of nnU-Net's Dice and cross-entropy.

    ``-log p_y + lambda mean_k mean_b |mean p_k - share of k|`` over the bins b of p_k, of each image. Defaults:
    ``penalty_weight`` lambda 1, ``n_bins`` 20; see :class:`nnunet_nacl.losses.ACELoss`.

    It may cost Dice on small structures, since nnU-Net's Dice term is left out.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerACE

    A setting is changed by a token of the name, ``-tr nnUNetTrainerACE_lambda2``, or in a subclass
    (docs/losses.md, "Own trainers")::

        class nnUNetTrainerACE_ours(nnUNetTrainerACE):
            loss_settings = {"penalty_weight": 2.0}
    """

    loss_class = ACELoss


class nnUNetTrainerDiceACE(nnUNetTrainerACE):
    """The loss of :class:`nnUNetTrainerACE` plus nnU-Net's soft Dice loss.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceACE

    ``-tr nnUNetTrainerDiceACE_anneal`` lowers the weight of the Dice term to 0 by half of the training.
    """

    with_dice = True
