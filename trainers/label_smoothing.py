"""Label smoothing (LS) in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import LabelSmoothingLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerLS(CalibrationTrainer):
    """Cross-entropy with label smoothing (Szegedy et al. 2016; Murugesan et al., eq. 2).

    ``-sum_k q_k log p_k``, ``q_k = (1 - alpha) [k = y] + alpha / K`` for K classes.

    Defaults: alpha 0.1.

    Costs: probabilities become less sure everywhere, in plain background too.

    Other settings, by name: ``nnUNetTrainerLS_alpha0p05``; by a subclass: ``loss_settings =
    {"smoothing": 0.05}``.
    """

    loss_class = LabelSmoothingLoss


class nnUNetTrainerDiceLS(nnUNetTrainerLS):
    """The same loss plus nnU-Net's Dice term, see :class:`CalibrationTrainer`."""

    with_dice = True
