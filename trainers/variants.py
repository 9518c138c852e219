"""Makes the class of a trainer's name with tokens: a subclass with other class attributes.

``nnUNetTrainerNACL_lambda0p2_100epochs`` is what this class statement would make::

    class nnUNetTrainerNACL_lambda0p2_100epochs(nnUNetTrainerNACL):
        loss_settings = {"penalty_weight": 0.2}
        epochs = 100

nnU-Net finds the class of a trained model by its name alone, so these classes are made when they
are asked for. Each is an attribute of the package ``nnunet_nacl_trainers``, so that instances of it
can be pickled.
"""

from __future__ import annotations

from nnunet_nacl.registration.variant import Variant
from nnunet_nacl_trainers.base import CalibrationTrainer

PACKAGE = "nnunet_nacl_trainers"


def make_variant(parent: type[CalibrationTrainer], variant: Variant) -> type[CalibrationTrainer]:
    """The class of a name with tokens, each time another one; ``get_trainer`` keeps the one that
    counts.

    Args:
        parent: The trainer whose settings the tokens change.
        variant: The name as the grammar has read it.

    """
    attributes = {
        "__module__": PACKAGE,
        "__doc__": f"Trains with {variant.meaning}.",
        "loss_settings": variant.loss_settings,
        **variant.class_attributes,
    }
    return type(variant.name, (parent,), attributes)
