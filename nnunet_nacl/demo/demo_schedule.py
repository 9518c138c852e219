"""The demo's schedule: every trainer gets the same one, and its name spells it out."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from nnunet_nacl.errors import UserError
from nnunet_nacl.registration.grammar import PREFIX, Variant, format_name, parse

STOCK = PREFIX
DEFAULT_TRAINERS = (STOCK, f"{PREFIX}CE", f"{PREFIX}NACL")

_STOCK_EPOCHS = 1000
_STOCK_ITERATIONS = 250


@dataclass(frozen=True)
class Schedule:
    """Length and optimiser of the trainings.

    Attributes:
        epochs: Number of epochs.
        iterations: Iterations per epoch.
        adam: Adam as in the NACL paper, else nnU-Net's SGD.
    """

    epochs: int
    iterations: int
    adam: bool = True


def with_schedule(name: str, schedule: Schedule) -> str:
    """The trainer that is run for a name given by the user.

    A name of ours without schedule tokens gets the demo's, so that all trainers compare; `nnUNetTrainer` becomes its
    loss, Dice + CE, under it. Names with schedule tokens and other people's trainers keep their own.

    Raises:
        UserError: If the name is of one of our methods but breaks the grammar, or a value is out of range.
    """
    if schedule.epochs < 1 or schedule.iterations < 1:
        raise UserError(f"-epochs and -iters must be at least 1, received {schedule.epochs} and {schedule.iterations}")
    try:
        variant = Variant("CE", dice=True) if name == STOCK else parse(name)
        if variant is None or variant.epochs or variant.iterations or variant.adam:
            return name
        variant = replace(variant, epochs=schedule.epochs, iterations=schedule.iterations, adam=schedule.adam)
        if variant == replace(Variant("CE", dice=True), epochs=_STOCK_EPOCHS, iterations=_STOCK_ITERATIONS):
            return STOCK
        return format_name(variant)
    except ValueError as error:
        raise UserError(str(error)) from error


def schedule_of(name: str) -> Schedule:
    """Reads a trainer's schedule from its name; nnU-Net's own where the name says nothing."""
    variant = parse(name)
    if variant is not None:
        return Schedule(variant.epochs or _STOCK_EPOCHS, variant.iterations or _STOCK_ITERATIONS, variant.adam)
    epochs = re.search(r"_(\d+)epochs?", name)
    return Schedule(int(epochs[1]) if epochs else _STOCK_EPOCHS, _STOCK_ITERATIONS, adam=False)


def short_name(name: str) -> str:
    """A trainer's name without nnU-Net's prefix and the schedule, for the progress bar."""
    return re.split(r"_(?:\d+epochs?|\d+iters|adam)", name.removeprefix(PREFIX))[0] or name
