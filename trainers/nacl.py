"""Neighbour-aware calibration (NACL) in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import NACLLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerNACL(CalibrationTrainer):
    """Cross-entropy plus NACL's penalty on logits (Murugesan et al. 2025, eq. 9).

    ``-log p_y + lambda mean_k |m tau_k - l_k|``, l logits, tau_k the share of class k in a voxel's
    neighbourhood.

    Defaults: lambda 0.1, neighbourhood 3 x 3 (x 3), but 1 along axes with thick slices, all
    neighbours weigh the same, m 1.

    Costs: the penalty limits the confidence everywhere, in plain background too, where a
    network then is less sure than it should be.

    Other settings, by name: ``nnUNetTrainerNACL_lambda0p3_k5``; by a subclass: ``loss_settings
    = {"penalty_weight": 0.3, "kernel_size": 5}``.
    """

    loss_class = NACLLoss


class nnUNetTrainerDiceNACL(nnUNetTrainerNACL):
    """The same loss plus nnU-Net's Dice term, see :class:`CalibrationTrainer`."""

    with_dice = True
