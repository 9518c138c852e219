"""Margin-based label smoothing (MbLS) in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import MbLSLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerMbLS(CalibrationTrainer):
    """Cross-entropy plus a penalty on logit distances beyond a margin (MbLS; Liu et al. 2022, eq.
    7).

    ``-log p_y + lambda mean_k relu(max_j l_j - l_k - m)``, l logits.

    Defaults: lambda 0.1, margin m 5.

    Costs: without nnU-Net's Dice term the Dice of small structures may fall; compare with
    ``nnUNetTrainerCE``. An iteration takes about as long as nnU-Net's.

    Train it::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerMbLS

    Change a setting by name, or by a subclass (docs/losses.md, "Own trainers")::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerMbLS_lambda0p2_m10

        class nnUNetTrainerMbLS_ours(nnUNetTrainerMbLS):
            loss_settings = {"penalty_weight": 0.2, "margin": 10.0}
            epochs = 250

    """

    loss_class = MbLSLoss


class nnUNetTrainerDiceMbLS(nnUNetTrainerMbLS):
    """Cross-entropy and MbLS's penalty (Liu et al. 2022, eq. 7), plus nnU-Net's Dice term.

    Defaults: those of :class:`nnUNetTrainerMbLS`, the soft Dice loss with weight 1, and nnU-Net's
    own start, since the Dice term finds small structures. ``anneal`` in the name, or ``anneal_dice
    = True`` in a subclass, lets the weight of the Dice term fall to 0 by half-time.

    Costs: the Dice term makes networks overconfident, as in nnU-Net's own loss.

    Train it, or change a setting by name or by a subclass::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceMbLS
        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceMbLS_anneal_lambda0p2_m10

        class nnUNetTrainerDiceMbLS_ours(nnUNetTrainerDiceMbLS):
            anneal_dice = True
            loss_settings = {"penalty_weight": 0.2, "margin": 10.0}

    """

    with_dice = True
