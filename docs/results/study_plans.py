"""Adds to nnU-Net's plans the small 2D configuration that a study trains on a CPU core in minutes.

    python docs/results/study_plans.py PREPROCESSED_DATASET CONFIGURATION [SPACING_MM]

Without a spacing CONFIGURATION has the data of `2d`, batches of at most 16 and 3/8 of its features. With one, in the
plane, patches cover half the extent in fewer voxels, batches hold 8, the deepest stages whose feature maps would be
smaller than nnU-Net allows (4 voxels) are left out, and the deepest that is left is no wider than the one above it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from pathlib import Path

SHARE = 3 / 8
SMALLEST_MAP = 4
COVERED = 1 / 2


def small(planned: dict, spacing_mm: float | None) -> dict:
    """The configuration as an entry of the plans that inherits from `2d`."""
    architecture = copy.deepcopy(planned["architecture"])
    kwargs = architecture["arch_kwargs"]
    patch = planned["patch_size"]
    entry = {"inherits_from": "2d", "batch_size": min(planned["batch_size"], 16)}
    if spacing_mm is not None:
        scale = [old / spacing_mm for old in planned["spacing"]]
        patch = [max(16, round(size * factor * COVERED / 16) * 16) for size, factor in zip(patch, scale)]
        stages = 1
        while stages < kwargs["n_stages"] and min(patch) // 2**stages >= SMALLEST_MAP:
            stages += 1
        for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
            kwargs[key] = kwargs[key][:stages]
        kwargs["n_conv_per_stage_decoder"] = kwargs["n_conv_per_stage_decoder"][: stages - 1]
        kwargs["n_stages"] = stages
        entry |= {
            "batch_size": 8,
            "data_identifier": f"{planned['data_identifier']}_{spacing_mm:g}mm",
            "spacing": [spacing_mm] * 2,
            "patch_size": patch,
            "median_image_size_in_voxels": [
                size * factor for size, factor in zip(planned["median_image_size_in_voxels"], scale)
            ],
        }
        kwargs["features_per_stage"][-1] = kwargs["features_per_stage"][-2]
    kwargs["features_per_stage"] = [max(1, round(width * SHARE)) for width in kwargs["features_per_stage"]]
    return entry | {"architecture": architecture}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("configuration")
    parser.add_argument("spacing_mm", type=float, nargs="?")
    args = parser.parse_args()
    path = args.folder / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"][args.configuration] = small(plans["configurations"]["2d"], args.spacing_mm)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(plans, indent=4), encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
