"""nnU-Net trainers with calibrating losses.

One trainer of each method stands in :mod:`nnunet_nacl_trainers.methods`. Any other name of the grammar in
:mod:`nnunet_nacl.registration.grammar` is made when it is asked for. Every trainer is an attribute of this package, so
that instances of it can be pickled: ``from nnunet_nacl_trainers import nnUNetTrainerNACL_lambda0p2``.
"""

from __future__ import annotations

from importlib import import_module

from nnunet_nacl.methods import NAMED_TRAINERS, PREFIX, Variant
from nnunet_nacl.registration.grammar import parse

__all__ = ["NAMED_TRAINERS", "get_trainer"]


def get_trainer(name: str) -> type | None:
    """The trainer class of a name.

    Args:
        name: As given to ``-tr``.

    Returns:
        The class, always the same one for the same name, or None if the name is none of ours.

    Raises:
        ValueError: The method is ours but its tokens are not right; the message holds the grammar.
    """
    if name.startswith(PREFIX) and name in globals():
        return globals()[name]
    variant = parse(name)
    if variant is None:
        return None
    trainer = getattr(import_module(f"{__name__}.methods"), f"{PREFIX}{variant.method}")
    if variant != Variant(variant.method):
        settings = {
            "__module__": __name__,
            "__qualname__": name,
            "__doc__": f"{trainer.__name__} with the settings of its name.",
            "variant": variant,
        }
        bases: tuple[type, ...] = (trainer,)
        if variant.network is not None:
            bases = (import_module(f"{__name__}.backbones").BackboneTrainer, trainer)
        trainer = type(name, bases, settings)
    globals()[name] = trainer
    return trainer


def __getattr__(name: str) -> type:
    if not name.startswith(PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    trainer = get_trainer(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    return trainer
