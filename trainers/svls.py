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

    Other settings, by name: ``nnUNetTrainerSVLS_k5_sigma1``; by a subclass: ``loss_settings =
    {"kernel_size": 5, "sigma": 1.0}``.
    """

    loss_class = SVLSLoss


class nnUNetTrainerDiceSVLS(nnUNetTrainerSVLS):
    """The same loss plus nnU-Net's Dice term, see :class:`CalibrationTrainer`."""

    with_dice = True
