"""Margin-based label smoothing (MbLS) in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import MbLSLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerMbLS(CalibrationTrainer):
    """Cross-entropy plus a penalty on logit distances beyond a margin (MbLS; Liu et al. 2022, eq.
    7).

    ``-log p_y + lambda mean_k relu(max_j l_j - l_k - m)``, l logits.

    Defaults: lambda 0.1, margin m 5.

    Other settings, by name: ``nnUNetTrainerMbLS_lambda0p2_m10``; by a subclass: ``loss_settings
    = {"penalty_weight": 0.2, "margin": 10.0}``.
    """

    loss_class = MbLSLoss


class nnUNetTrainerDiceMbLS(nnUNetTrainerMbLS):
    """The same loss plus nnU-Net's Dice term, see :class:`CalibrationTrainer`."""

    with_dice = True
