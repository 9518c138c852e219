"""Average calibration error (mL1-ACE) beside cross-entropy, in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import ACELoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerACE(CalibrationTrainer):
    """Cross-entropy plus the average calibration error of each class (mL1-ACE; Barfoot et al.
    2025).

    ``-log p_y + lambda mean_k mean_b |mean p_k - share of k|``, b the bins of p_k that hold a
    voxel, in each image of the batch (arXiv 2506.03942).

    Defaults: lambda 1, 20 bins.

    Costs: it sorts all voxels into bins in each iteration, which in 3D makes it the slowest of the
    losses. Without nnU-Net's Dice term the Dice of small structures may fall; compare with
    ``nnUNetTrainerCE``.

    Train it::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerACE

    Change a setting by name, or by a subclass (docs/losses.md, "Own trainers")::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerACE_lambda2

        class nnUNetTrainerACE_ours(nnUNetTrainerACE):
            loss_settings = {"penalty_weight": 2.0, "n_bins": 15}
            epochs = 250

    """

    loss_class = ACELoss


class nnUNetTrainerDiceACE(nnUNetTrainerACE):
    """Cross-entropy and mL1-ACE (Barfoot et al. 2025), plus nnU-Net's Dice term.

    Defaults: those of :class:`nnUNetTrainerACE`, the soft Dice loss with weight 1, and nnU-Net's
    own start, since the Dice term finds small structures. ``anneal`` in the name, or ``anneal_dice
    = True`` in a subclass, lets the weight of the Dice term fall to 0 by half-time.

    Costs: the Dice term makes networks overconfident, as in nnU-Net's own loss.

    Train it, or change a setting by name or by a subclass::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceACE
        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceACE_anneal_lambda2

        class nnUNetTrainerDiceACE_ours(nnUNetTrainerDiceACE):
            anneal_dice = True
            loss_settings = {"penalty_weight": 2.0, "n_bins": 15}

    """

    with_dice = True
