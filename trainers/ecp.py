"""Explicit confidence penalty (ECP) in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import ECPLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerECP(CalibrationTrainer):
    """Cross-entropy minus a multiple of the prediction's entropy (ECP; Pereyra et al. 2017).

    ``-log p_y - alpha mean_k (-p_k log p_k)``.

    Defaults: alpha 0.1.

    Other settings, by name: ``nnUNetTrainerECP_alpha0p3``; by a subclass: ``loss_settings =
    {"penalty_weight": 0.3}``.
    """

    loss_class = ECPLoss


class nnUNetTrainerDiceECP(nnUNetTrainerECP):
    """The same loss plus nnU-Net's Dice term, see :class:`CalibrationTrainer`."""

    with_dice = True
