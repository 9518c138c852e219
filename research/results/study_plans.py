"""Adds to nnU-Net's plans a small configuration that a study trains on a CPU core in minutes.

    python research/results/study_plans.py PREPROCESSED_DATASET {2d_small,3d_small}

`2d_small` has the data of `2d`, batches of at most 16 and 3/8 of its features. Where patches of `2d` are longer than
128 voxels, voxels are twice as large in the plane, patches cover half the extent, batches hold at most 8, the deepest
stages whose feature maps would be smaller than nnU-Net allows (4 voxels) are left out, and the deepest that is left
is no wider than the one above it. `3d_small` has the data of `3d_fullres`, batches of 2 and a quarter of its
features.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from pathlib import Path

SMALL = {"2d_small": ("2d", 16, 3 / 8), "3d_small": ("3d_fullres", 2, 1 / 4)}
"""Name -> nnU-Net's configuration that it is made from, its largest batch, the share of features that it keeps."""

SMALLEST_MAP = 4
LONGEST_PATCH = 128
ENLARGED = 2
COVERED = 1 / 2


def small(configurations: dict, name: str) -> dict:
    """The configuration `name` as an entry of the plans, which inherits from the planned one."""
    parent, largest_batch, share = SMALL[name]
    planned = configurations[parent]
    architecture = copy.deepcopy(planned["architecture"])
    kwargs = architecture["arch_kwargs"]
    entry = {"inherits_from": parent, "batch_size": min(planned["batch_size"], largest_batch)}
    if parent == "2d" and max(planned["patch_size"]) > LONGEST_PATCH:
        spacing = [ENLARGED * size for size in planned["spacing"]]
        patch = [max(16, round(size * COVERED / ENLARGED / 16) * 16) for size in planned["patch_size"]]
        stages = 1
        while stages < kwargs["n_stages"] and min(patch) // 2**stages >= SMALLEST_MAP:
            stages += 1
        for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
            kwargs[key] = kwargs[key][:stages]
        kwargs["n_conv_per_stage_decoder"] = kwargs["n_conv_per_stage_decoder"][: stages - 1]
        kwargs["n_stages"] = stages
        kwargs["features_per_stage"][-1] = kwargs["features_per_stage"][-2]
        entry |= {
            "batch_size": min(planned["batch_size"], 8),
            "data_identifier": f"{planned['data_identifier']}_{spacing[0]:g}mm",
            "spacing": spacing,
            "patch_size": patch,
            "median_image_size_in_voxels": [size / ENLARGED for size in planned["median_image_size_in_voxels"]],
        }
    kwargs["features_per_stage"] = [max(1, round(width * share)) for width in kwargs["features_per_stage"]]
    return entry | {"architecture": architecture}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("configuration", choices=SMALL)
    args = parser.parse_args()
    path = args.folder / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    plans["configurations"][args.configuration] = small(plans["configurations"], args.configuration)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(plans, indent=4), encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
