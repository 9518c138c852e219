"""Explicit confidence penalty (ECP) in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import ECPLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerECP(CalibrationTrainer):
    """Cross-entropy minus a multiple of the prediction's entropy (ECP; Pereyra et al. 2017).

    ``-log p_y - alpha mean_k (-p_k log p_k)``.

    Defaults: alpha 0.1.

    Costs: without nnU-Net's Dice term the Dice of small structures may fall; compare with
    ``nnUNetTrainerCE``. An iteration takes about as long as nnU-Net's.

    Train it::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerECP

    Change a setting by name, or by a subclass (docs/losses.md, "Own trainers")::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerECP_alpha0p3

        class nnUNetTrainerECP_ours(nnUNetTrainerECP):
            loss_settings = {"penalty_weight": 0.3}
            epochs = 250

    """

    loss_class = ECPLoss


class nnUNetTrainerDiceECP(nnUNetTrainerECP):
    """Cross-entropy minus a multiple of the entropy (Pereyra et al. 2017), plus nnU-Net's Dice
    term.

    Defaults: those of :class:`nnUNetTrainerECP`, the soft Dice loss with weight 1, and nnU-Net's
    own start, since the Dice term finds small structures. ``anneal`` in the name, or ``anneal_dice
    = True`` in a subclass, lets the weight of the Dice term fall to 0 by half-time.

    Costs: the Dice term makes networks overconfident, as in nnU-Net's own loss.

    Train it, or change a setting by name or by a subclass::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceECP
        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceECP_anneal_alpha0p3

        class nnUNetTrainerDiceECP_ours(nnUNetTrainerDiceECP):
            anneal_dice = True
            loss_settings = {"penalty_weight": 0.3}

    """

    with_dice = True
