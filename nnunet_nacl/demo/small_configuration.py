"""Adds a small copy of a configuration to nnU-Net's plans, which a CPU can train.

python -m nnunet_nacl.demo.small_configuration PLANS_FILE CONFIGURATION [LARGEST_BATCH]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from nnunet_nacl.utilities.files import write_atomically
from nnunet_nacl.utilities.json_files import read_dict

SMALL = "_small"
"""What follows the name of the configuration that is copied."""
SHARE_OF_FEATURES = 3 / 8
LARGEST_BATCH = {2: 16, 3: 2}
"""Slices, or patches in 3D, by the number of axes."""


def add_small_configuration(
    plans_file: Path, parent: str, largest_batch: int | None = None
) -> None:
    """Adds `<parent>_small`: many small steps get further in the same time than few large ones.

    It has 3/8 of the planned features, so 12, 24, 48, ... for nnU-Net's 32, 64, 128, ...; all else,
    the preprocessed data included, is the parent's.

    Args:
        plans_file: nnU-Net's plans, which are written again.
        parent: The configuration that is copied.
        largest_batch: Most samples in a batch; None: :data:`LARGEST_BATCH`.
    """
    plans = read_dict(plans_file)
    planned = plans["configurations"][parent]
    settings = planned["architecture"]["arch_kwargs"]
    features = [
        max(1, round(SHARE_OF_FEATURES * width)) for width in settings["features_per_stage"]
    ]
    if largest_batch is None:
        largest_batch = LARGEST_BATCH[len(planned["patch_size"])]
    small_settings = {**settings, "features_per_stage": features}
    plans["configurations"][parent + SMALL] = {
        "inherits_from": parent,
        "batch_size": min(planned["batch_size"], largest_batch),
        "architecture": {**planned["architecture"], "arch_kwargs": small_settings},
    }
    write_atomically(plans_file, json.dumps(plans, indent=4))


if __name__ == "__main__":
    batch = int(sys.argv[3]) if len(sys.argv) > 3 else None
    add_small_configuration(Path(sys.argv[1]), sys.argv[2], batch)
