"""nnU-Net trainers with calibrating losses, each a class in the file of its loss.

``nnUNetTrainerNACL`` stands in ``nacl.py``, what all share in ``base.py``. A name with tokens
(:mod:`nnunet_nacl.registration.grammar`) is an attribute of this package, too: a subclass that is
made when it is asked for, since nnU-Net finds the class of a trained model by its name alone, and
that can be pickled. ``nnUNetTrainerNACL_lambda0p2_100epochs`` is what this class statement would
make::

    class nnUNetTrainerNACL_lambda0p2_100epochs(nnUNetTrainerNACL):
        loss_settings = {"penalty_weight": 0.2}
        epochs = 100

"""

from __future__ import annotations

from functools import cache

from nnunet_nacl.methods import PREFIX
from nnunet_nacl.registration.grammar import parse
from nnunet_nacl_trainers.ace import nnUNetTrainerACE, nnUNetTrainerDiceACE
from nnunet_nacl_trainers.base import CalibrationTrainer
from nnunet_nacl_trainers.cross_entropy import nnUNetTrainerCE, nnUNetTrainerDiceCE
from nnunet_nacl_trainers.ecp import nnUNetTrainerDiceECP, nnUNetTrainerECP
from nnunet_nacl_trainers.focal import nnUNetTrainerDiceFocal, nnUNetTrainerFocal
from nnunet_nacl_trainers.label_smoothing import nnUNetTrainerDiceLS, nnUNetTrainerLS
from nnunet_nacl_trainers.mbls import nnUNetTrainerDiceMbLS, nnUNetTrainerMbLS
from nnunet_nacl_trainers.nacl import nnUNetTrainerDiceNACL, nnUNetTrainerNACL
from nnunet_nacl_trainers.svls import nnUNetTrainerDiceSVLS, nnUNetTrainerSVLS

__all__ = [
    "CalibrationTrainer",
    "get_trainer",
    "nnUNetTrainerACE",
    "nnUNetTrainerCE",
    "nnUNetTrainerDiceACE",
    "nnUNetTrainerDiceCE",
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

_TRAINERS: tuple[type[CalibrationTrainer], ...] = (
    nnUNetTrainerACE,
    nnUNetTrainerCE,
    nnUNetTrainerDiceACE,
    nnUNetTrainerDiceCE,
    nnUNetTrainerDiceECP,
    nnUNetTrainerDiceFocal,
    nnUNetTrainerDiceLS,
    nnUNetTrainerDiceMbLS,
    nnUNetTrainerDiceNACL,
    nnUNetTrainerDiceSVLS,
    nnUNetTrainerECP,
    nnUNetTrainerFocal,
    nnUNetTrainerLS,
    nnUNetTrainerMbLS,
    nnUNetTrainerNACL,
    nnUNetTrainerSVLS,
)
TRAINERS = {trainer.__name__: trainer for trainer in _TRAINERS}
"""The trainers without tokens by their names."""


@cache
def get_trainer(name: str) -> type[CalibrationTrainer] | None:
    """The trainer class of a name, always the same one; None if it is none of ours.

    Raises:
        ValueError: The name begins as one of ours, but a token of it is wrong; the message ends in
        the name that was probably meant.

    """
    variant = parse(name)
    if variant is None:
        return None
    if name in TRAINERS:
        return TRAINERS[name]
    attributes = {
        "__module__": __name__,
        "__doc__": f"Trains with {variant.meaning}.",
        "loss_settings": variant.loss_settings,
        **variant.class_attributes,
    }
    return type(name, (TRAINERS[variant.named_trainer],), attributes)


def __getattr__(name: str) -> type[CalibrationTrainer]:
    """A name with tokens as an attribute: whoever imports or unpickles it asks here."""
    trainer = get_trainer(name) if name.startswith(PREFIX) else None
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return trainer
