"""nnU-Net trainers with calibrating losses.

Named trainers stand in the modules of this package. Any other name of the grammar in
:mod:`nnunet_nacl.registration.grammar` is made when it is asked for, and is from then on an attribute of this package,
so that instances of it can be pickled: ``from nnunet_nacl_trainers import nnUNetTrainerNACL_lambda0p2``.
"""

from __future__ import annotations

from importlib import import_module

from nnunet_nacl.registration.grammar import METHODS, PREFIX, parse

__all__ = ["NAMED_TRAINERS", "get_trainer"]

_MODULES = {
    "NACL": "nacl",
    "SVLS": "svls",
    "MbLS": "mbls",
    "LS": "label_smoothing",
    "Focal": "focal",
    "ECP": "ecp",
    "CE": "ce",
}

NAMED_TRAINERS = tuple(
    f"{PREFIX}{dice}{method}" for method in METHODS for dice in ("", "Dice") if (dice, method) != ("Dice", "CE")
)
"""The trainers without tokens, one class each."""


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
    module = import_module(f"{__name__}.{_MODULES[variant.method]}")
    if name in NAMED_TRAINERS:
        trainer = getattr(module, name)
    else:
        base = f"{PREFIX}{'Dice' if variant.dice else ''}{variant.method}"
        parent = getattr(module, "StockLossTrainer" if base == f"{PREFIX}DiceCE" else base)
        trainer = type(
            name,
            (parent,),
            {
                "__module__": __name__,
                "__qualname__": name,
                "__doc__": f"{parent.__name__} with the settings of its name.",
                "variant": variant,
            },
        )
    globals()[name] = trainer
    return trainer


def __getattr__(name: str) -> type:
    if not name.startswith(PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    trainer = get_trainer(name)
    if trainer is None:
        raise AttributeError(f"module {__name__!r} has no trainer {name!r}")
    return trainer
