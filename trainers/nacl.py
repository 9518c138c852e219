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

    Costs: the penalty limits the confidence everywhere, in plain background too, where a network
    then is less sure than it should be. Without nnU-Net's Dice term the Dice of small structures
    may fall; compare with ``nnUNetTrainerCE``. An iteration takes about as long as nnU-Net's.

    Train it::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerNACL

    Change a setting by name, or by a subclass (docs/losses.md, "Own trainers")::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerNACL_lambda0p3_k5

        class nnUNetTrainerNACL_ours(nnUNetTrainerNACL):
            loss_settings = {"penalty_weight": 0.3, "kernel_size": 5}
            epochs = 250

    """

    loss_class = NACLLoss


class nnUNetTrainerDiceNACL(nnUNetTrainerNACL):
    """Cross-entropy and NACL's penalty (Murugesan et al. 2025, eq. 9), plus nnU-Net's Dice term.

    Defaults: those of :class:`nnUNetTrainerNACL`, the soft Dice loss with weight 1, and nnU-Net's
    own start, since the Dice term finds small structures. ``anneal`` in the name, or ``anneal_dice
    = True`` in a subclass, lets the weight of the Dice term fall to 0 by half-time.

    Costs: the Dice term makes networks overconfident, as in nnU-Net's own loss.

    Train it, or change a setting by name or by a subclass::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceNACL
        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceNACL_anneal_lambda0p3_k5

        class nnUNetTrainerDiceNACL_ours(nnUNetTrainerDiceNACL):
            anneal_dice = True
            loss_settings = {"penalty_weight": 0.3, "kernel_size": 5}

    """

    with_dice = True
