"""One trainer for each method. Its loss is the one that the table of methods names.

``nnUNetTrainerDice<METHOD>``, the same plus nnU-Net's soft Dice term, and the names with tokens are subclasses that
:func:`nnunet_nacl_trainers.get_trainer` makes.
"""

from __future__ import annotations

from torch import nn

from nnunet_nacl.methods import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer

__all__ = [
    "nnUNetTrainerCE",
    "nnUNetTrainerECP",
    "nnUNetTrainerFocal",
    "nnUNetTrainerLS",
    "nnUNetTrainerMbLS",
    "nnUNetTrainerNACL",
    "nnUNetTrainerSVLS",
]


class nnUNetTrainerNACL(CalibrationTrainer):
    """Cross-entropy plus lambda times the distance between logits and neighbourhood shares (paper, eq. 9)."""

    variant = Variant("NACL")


class nnUNetTrainerSVLS(CalibrationTrainer):
    """Cross-entropy against labels smoothed by a Gaussian over the neighbourhood (paper, eq. 3)."""

    variant = Variant("SVLS")


class nnUNetTrainerMbLS(CalibrationTrainer):
    """Cross-entropy plus a penalty on logits that lie more than a margin below the largest."""

    variant = Variant("MbLS")


class nnUNetTrainerLS(CalibrationTrainer):
    """Cross-entropy against labels of which a part alpha is spread over all classes."""

    variant = Variant("LS")


class nnUNetTrainerFocal(CalibrationTrainer):
    """Cross-entropy whose voxels weigh the less the surer the prediction is of the truth."""

    variant = Variant("Focal")


class nnUNetTrainerECP(CalibrationTrainer):
    """Cross-entropy less a multiple of the prediction's entropy."""

    variant = Variant("ECP")


class nnUNetTrainerCE(CalibrationTrainer):
    """Cross-entropy without the Dice term, or under other schedules nnU-Net's own loss with it.

    Much of what a calibrating loss gains over stock nnU-Net, it gains by leaving out Dice: compare with this one.
    """

    variant = Variant("CE")

    def _replace_loss(self, stock: nn.Module) -> nn.Module:
        return stock if self.variant.dice else super()._replace_loss(stock)
