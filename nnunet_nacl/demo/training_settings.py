"""What the demo trains: schedules in the trainers' names, and a configuration for two CPU cores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import write_atomically
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.methods import PREFIX
from nnunet_nacl.registration.grammar import format_name, parse
from nnunet_nacl.registration.variants import STOCK

SCHEDULES = {"virtual brains": (10, 100), "cpu": (40, 50), "gpu": (50, 100)}
"""Epochs, iterations per epoch: that of the virtual brains fits two CPU cores in 10 minutes for all three trainers."""

SMALL = "_small"


def with_schedule(name: str, epochs: int, iterations: int, adam: bool) -> str:
    """The trainer that is run for a name given by the user.

    A name of ours without schedule tokens gets the demo's, so that all trainers compare; `nnUNetTrainer` becomes its
    loss, Dice + CE, under it. Names with schedule tokens and other people's trainers keep their own.

    Raises:
        UserError: The name is of one of our methods but breaks the grammar, or a value is out of range.
    """
    try:
        variant = STOCK if name == PREFIX else parse(name)
        if variant is None or variant.epochs or variant.iterations or variant.adam:
            return name
        return format_name(replace(variant, epochs=epochs, iterations=iterations, adam=adam))
    except ValueError as error:
        raise UserError(str(error)) from error


def add_small_configuration(plans_file: Path, parent: str, largest_batch: int | None = None) -> None:
    """Adds `<parent>_small` to nnU-Net's plans: many small steps get further in the same time than few large ones.

    It has 3/8 of the planned features, so 12, 24, 48, ... for nnU-Net's 32, 64, 128, ..., and batches of at most
    ``largest_batch`` (16 slices, or 2 patches in 3D); all else, the preprocessed data included, is the parent's.

    Raises:
        UserError: The plans know no such parent.
    """
    plans = read_dict(plans_file)
    planned = plans["configurations"].get(parent, {})
    if "architecture" not in planned:
        known = ", ".join(plans["configurations"])
        raise UserError(f"{plans_file} has no configuration {parent!r} to derive a small one from; it has {known}")
    batch = min(planned["batch_size"], largest_batch or {2: 16, 3: 2}[len(planned["patch_size"])])
    settings = planned["architecture"]["arch_kwargs"]
    features = [max(1, round(3 / 8 * width)) for width in settings["features_per_stage"]]
    architecture = planned["architecture"] | {"arch_kwargs": settings | {"features_per_stage": features}}
    small = {"inherits_from": parent, "batch_size": batch, "architecture": architecture}
    plans["configurations"][parent + SMALL] = small
    write_atomically(plans_file, json.dumps(plans, indent=4))
