"""nnU-Net trainers with calibrating losses.

Every name of the grammar in :mod:`nnunet_nacl.registration.grammar` is a class that is made when it is asked for: that
of a method alone a subclass of :class:`~nnunet_nacl_trainers.base.CalibrationTrainer`, all others of their method's.
Each is an attribute of this package, so that instances of it can be pickled.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from nnunet_nacl.methods import NAMED_TRAINERS, PREFIX
from nnunet_nacl.registration.grammar import Variant, parse

__all__ = ["NAMED_TRAINERS", "get_trainer"]


def get_trainer(name: str) -> type | None:
    """The trainer class of a name, always one; None if none of ours; ValueError, with the grammar, for bad tokens."""
    if name.startswith(PREFIX) and name in globals():
        return globals()[name]
    variant = parse(name)
    if variant is None:
        return None
    alone = variant == Variant(variant.method)
    base: Any = import_module(f"{__name__}.base").CalibrationTrainer if alone else get_trainer(PREFIX + variant.method)
    settings = {"__module__": __name__, "__doc__": f"Trains with {variant.meaning}.", "variant": variant}
    trainer = globals()[name] = type(name, (base,), settings)
    return trainer


def __getattr__(name: str) -> type:
    if not name.startswith(PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    trainer = get_trainer(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    return trainer
