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

    Costs: it sorts all voxels into bins in each iteration, which in 3D makes it the slowest of
    the losses.

    Other settings, by name: ``nnUNetTrainerACE_lambda2``; by a subclass: ``loss_settings =
    {"penalty_weight": 2.0, "n_bins": 15}``.
    """

    loss_class = ACELoss


class nnUNetTrainerDiceACE(nnUNetTrainerACE):
    """The same loss plus nnU-Net's Dice term, see :class:`CalibrationTrainer`."""

    with_dice = True
