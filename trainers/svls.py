"""Spatially varying label smoothing (SVLS) in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import SVLSLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerSVLS(CalibrationTrainer):
    """Cross-entropy against labels smoothed over the neighbourhood (SVLS; Islam and Glocker 2021).

    ``-sum_k tau_k log p_k``, tau_k the share of class k in a voxel's neighbourhood, weighted by a
    Gaussian whose centre weighs as much as all its neighbours together (Murugesan et al. 2025, eq.
    3).

    Defaults: sigma 2, neighbourhood 3 x 3 (x 3), but 1 along axes with thick slices.

    Costs: without nnU-Net's Dice term the Dice of small structures may fall; compare with
    ``nnUNetTrainerCE``. An iteration takes about as long as nnU-Net's.

    Train it::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerSVLS

    Change a setting by name, or by a subclass (docs/losses.md, "Own trainers")::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerSVLS_k5_sigma1

        class nnUNetTrainerSVLS_ours(nnUNetTrainerSVLS):
            loss_settings = {"kernel_size": 5, "sigma": 1.0}
            epochs = 250

    """

    loss_class = SVLSLoss


class nnUNetTrainerDiceSVLS(nnUNetTrainerSVLS):
    """Cross-entropy against labels smoothed by SVLS's kernel (Islam and Glocker 2021), plus
    nnU-Net's Dice term.

    Defaults: those of :class:`nnUNetTrainerSVLS`, the soft Dice loss with weight 1, and nnU-Net's
    own start, since the Dice term finds small structures. ``anneal`` in the name, or ``anneal_dice
    = True`` in a subclass, lets the weight of the Dice term fall to 0 by half-time.

    Costs: the Dice term makes networks overconfident, as in nnU-Net's own loss.

    Train it, or change a setting by name or by a subclass::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceSVLS
        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceSVLS_anneal_k5_sigma1

        class nnUNetTrainerDiceSVLS_ours(nnUNetTrainerDiceSVLS):
            anneal_dice = True
            loss_settings = {"kernel_size": 5, "sigma": 1.0}

    """

    with_dice = True
