"""Label smoothing (LS) in place of nnU-Net's loss."""

from __future__ import annotations

from nnunet_nacl.losses import LabelSmoothingLoss
from nnunet_nacl_trainers.base import CalibrationTrainer


class nnUNetTrainerLS(CalibrationTrainer):
    """Cross-entropy with label smoothing (Szegedy et al. 2016; Murugesan et al., eq. 2).

    ``-sum_k q_k log p_k``, ``q_k = (1 - alpha) [k = y] + alpha / K`` for K classes.

    Defaults: alpha 0.1.

    Costs: probabilities become less sure everywhere, in plain background too. Without nnU-Net's
    Dice term the Dice of small structures may fall; compare with ``nnUNetTrainerCE``. An iteration
    takes about as long as nnU-Net's.

    Train it::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerLS

    Change a setting by name, or by a subclass (docs/losses.md, "Own trainers")::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerLS_alpha0p05

        class nnUNetTrainerLS_ours(nnUNetTrainerLS):
            loss_settings = {"smoothing": 0.05}
            epochs = 250

    """

    loss_class = LabelSmoothingLoss


class nnUNetTrainerDiceLS(nnUNetTrainerLS):
    """Cross-entropy with label smoothing (Szegedy et al. 2016), plus nnU-Net's Dice term.

    Defaults: those of :class:`nnUNetTrainerLS`, the soft Dice loss with weight 1, and nnU-Net's own
    start, since the Dice term finds small structures. ``anneal`` in the name, or ``anneal_dice =
    True`` in a subclass, lets the weight of the Dice term fall to 0 by half-time.

    Costs: the Dice term makes networks overconfident, as in nnU-Net's own loss.

    Train it, or change a setting by name or by a subclass::

        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceLS
        nnUNetv2_train DATASET 3d_fullres 0 -tr nnUNetTrainerDiceLS_anneal_alpha0p05

        class nnUNetTrainerDiceLS_ours(nnUNetTrainerDiceLS):
            anneal_dice = True
            loss_settings = {"smoothing": 0.05}

    """

    with_dice = True
