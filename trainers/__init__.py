"""nnU-Net trainers with calibrating losses: one file for each loss, named as in :mod:`nnunet_nacl.losses`.

Every trainer without tokens is a class in such a file, and an attribute of this package; a name with tokens,
such as ``nnUNetTrainerNACL_lambda0p2_100epochs``, is a subclass that :mod:`nnunet_nacl_trainers.variants` makes
when it is asked for. Both are found here by :func:`get_trainer`, so that they pickle.
"""

from __future__ import annotations

from nnunet_nacl.methods import PREFIX
from nnunet_nacl_trainers.ace import nnUNetTrainerACE, nnUNetTrainerDiceACE
from nnunet_nacl_trainers.base import CalibrationTrainer
from nnunet_nacl_trainers.cross_entropy import nnUNetTrainerCE
from nnunet_nacl_trainers.ecp import nnUNetTrainerDiceECP, nnUNetTrainerECP
from nnunet_nacl_trainers.focal import nnUNetTrainerDiceFocal, nnUNetTrainerFocal
from nnunet_nacl_trainers.label_smoothing import nnUNetTrainerDiceLS, nnUNetTrainerLS
from nnunet_nacl_trainers.mbls import nnUNetTrainerDiceMbLS, nnUNetTrainerMbLS
from nnunet_nacl_trainers.nacl import nnUNetTrainerDiceNACL, nnUNetTrainerNACL
from nnunet_nacl_trainers.svls import nnUNetTrainerDiceSVLS, nnUNetTrainerSVLS
from nnunet_nacl_trainers.variants import get_trainer

__all__ = [
    "CalibrationTrainer",
    "get_trainer",
    "nnUNetTrainerACE",
    "nnUNetTrainerCE",
    "nnUNetTrainerDiceACE",
    "nnUNetTrainerDiceECP",
    "nnUNetTrainerDiceFocal",
    "nnUNetTrainerDiceLS",
    "nnUNetTrainerDiceMbLS",
    "nnUNetTrainerDiceNACL",
    "nnUNetTrainerDiceSVLS",
    "nnUNetTrainerECP",
    "nnUNetTrainerFocal",
    "nnUNetTrainerLS",
    "nnUNetTrainerMbLS",
    "nnUNetTrainerNACL",
    "nnUNetTrainerSVLS",
]


def __getattr__(name: str) -> type[CalibrationTrainer]:
    """A trainer whose name has tokens; pickle and nnU-Net's look-up ask for it."""
    if not name.startswith(PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    trainer = get_trainer(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    return trainer
