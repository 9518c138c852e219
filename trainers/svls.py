"""Trainers of SVLS, spatially varying label smoothing: the loss is in nnunet_nacl/losses/svls.py."""

from __future__ import annotations

from nnunet_nacl.losses import SVLSLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerSVLS(CalibrationTrainer):
    """Spatially varying label smoothing (Islam and Glocker, IPMI 2021; Murugesan et al. 2025, eq. 3), in place of
    nnU-Net's Dice and cross-entropy.

    ``-sum_k tau_k log p_k``: cross-entropy against the labels tau, smoothed over the neighbourhood. Defaults:
    ``sigma`` 2, ``kernel_size`` 3 (1 along axes with thick slices), ``padding`` replicate; see
    :class:`nnunet_nacl.losses.SVLSLoss`.

    It may cost Dice on small structures, since nnU-Net's Dice term is left out.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerSVLS

    A setting is changed by a token of the name, ``-tr nnUNetTrainerSVLS_sigma1``, or in a subclass
    (docs/losses.md, "Own trainers")::

        class nnUNetTrainerSVLS_ours(nnUNetTrainerSVLS):
            loss_settings = {"sigma": 1.0}
    """

    loss_class = SVLSLoss


class nnUNetTrainerDiceSVLS(nnUNetTrainerSVLS):
    """The loss of :class:`nnUNetTrainerSVLS` plus nnU-Net's soft Dice loss.

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceSVLS

    ``-tr nnUNetTrainerDiceSVLS_anneal`` lowers the weight of the Dice term to 0 by half of the training.
    """

    with_dice = True
