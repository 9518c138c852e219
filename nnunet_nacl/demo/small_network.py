"""A network that two CPU cores can train, as one more configuration in nnU-Net's plans file."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import write_atomically
from nnunet_nacl.json_files import read_dict

SMALL_SUFFIX = "_small"
_LARGEST_BATCH = {2: 16, 3: 2}
_FEATURES_FACTOR = 3 / 8


def parent_configuration(configuration: str) -> str:
    """The planned configuration whose preprocessed data this one uses."""
    return configuration.removesuffix(SMALL_SUFFIX)


def add_small_configuration(
    plans_file: str | os.PathLike, parent: str = "2d", largest_batch: int | None = None
) -> tuple[str, str]:
    """Adds the configuration `<parent>_small` to a plans file, by nnU-Net's own `inherits_from`.

    The network has 3/8 of the planned features, so 12, 24, 48, ... for nnU-Net's 32, 64, 128, ..., and batches are
    smaller; all else, the preprocessed data included, is the parent's.

    Args:
        plans_file: nnUNetPlans.json of the preprocessed dataset.
        parent: A configuration in it.
        largest_batch: What a batch holds at most; default 16 slices, or 2 patches in 3D.

    Returns:
        Name of the configuration, and what it is in words.

    Raises:
        UserError: If the plans know no such parent.
    """
    plans_file = Path(plans_file)
    plans = read_dict(plans_file)
    configurations = plans["configurations"]
    if parent not in configurations or "architecture" not in configurations[parent]:
        raise UserError(
            f"{plans_file} has no configuration {parent!r} to derive a small one from; it has "
            f"{', '.join(configurations)}"
        )
    name = parent + SMALL_SUFFIX
    planned = configurations[parent]
    batch_size = min(planned["batch_size"], largest_batch or _LARGEST_BATCH[len(planned["patch_size"])])
    architecture = copy.deepcopy(planned["architecture"])
    features = [max(1, round(width * _FEATURES_FACTOR)) for width in architecture["arch_kwargs"]["features_per_stage"]]
    architecture["arch_kwargs"]["features_per_stage"] = features
    small = {"inherits_from": parent, "batch_size": batch_size, "architecture": architecture}
    if configurations.get(name) != small:
        configurations[name] = small
        write_atomically(plans_file, json.dumps(plans, indent=4))
    return name, f"batch {batch_size} instead of {planned['batch_size']}, features {'/'.join(map(str, features))}"
