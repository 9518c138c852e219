"""Adds to nnU-Net's plans a small configuration that a study trains on a CPU core in minutes.

    python research/results/study_plans.py PREPROCESSED_DATASET {2d_small,3d_small}

`2d_small` has the data of `2d`, batches of at most 16 and 3/8 of its features. Where patches of
`2d` are longer than 128 voxels, voxels are twice as large in the plane, patches cover half the
extent, batches hold at most 8, the deepest stages whose feature maps would be smaller than nnU-Net
allows (4 voxels) are left out, and the deepest that is left is no wider than the one above it.
`3d_small` has the data of `3d_fullres`, batches of 2 and a quarter of its features.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Reduction:
    """How a planned configuration is made smaller.

    Attributes:
        planned: nnU-Net's configuration that it is made from.
        largest_batch: Largest batch.
        share_of_features: Share of the features that is kept.
    """

    planned: str
    largest_batch: int
    share_of_features: float


SMALL = {
    "2d_small": Reduction(planned="2d", largest_batch=16, share_of_features=3 / 8),
    "3d_small": Reduction(planned="3d_fullres", largest_batch=2, share_of_features=1 / 4),
}
"""By name."""

SMALLEST_MAP = 4
"""Voxels along the shorter axis of the deepest feature maps, at least."""
LONGEST_PATCH = 128
"""Voxels; where a patch is longer, voxels are enlarged."""
ENLARGED = 2
COVERED = 1 / 2
"""Of the extent of the planned patch."""
LARGEST_ENLARGED_BATCH = 8


def reduce_configuration(configurations: dict[str, dict], name: str) -> dict[str, object]:
    """The configuration `name` as an entry of the plans, which inherits from the planned one."""
    reduction = SMALL[name]
    planned = configurations[reduction.planned]
    architecture = copy.deepcopy(planned["architecture"])
    network = architecture["arch_kwargs"]
    entry = {
        "inherits_from": reduction.planned,
        "batch_size": min(planned["batch_size"], reduction.largest_batch),
    }
    if reduction.planned == "2d" and max(planned["patch_size"]) > LONGEST_PATCH:
        entry |= enlarge_voxels(planned)
        keep_stages(network, number_of_stages(entry["patch_size"], network["n_stages"]))
    features = [width * reduction.share_of_features for width in network["features_per_stage"]]
    network["features_per_stage"] = [max(1, round(width)) for width in features]
    return entry | {"architecture": architecture}


def enlarge_voxels(planned: dict) -> dict:
    """What changes in a configuration whose voxels are enlarged and whose patches cover less."""
    spacing = [ENLARGED * size for size in planned["spacing"]]
    patch_size = []
    for size in planned["patch_size"]:
        multiple_of_16 = round(size * COVERED / ENLARGED / 16) * 16
        patch_size.append(max(16, multiple_of_16))
    median_size = planned["median_image_size_in_voxels"]
    return {
        "batch_size": min(planned["batch_size"], LARGEST_ENLARGED_BATCH),
        "data_identifier": f"{planned['data_identifier']}_{spacing[0]:g}mm",
        "spacing": spacing,
        "patch_size": patch_size,
        "median_image_size_in_voxels": [size / ENLARGED for size in median_size],
    }


def number_of_stages(patch_size: list[int], planned: int) -> int:
    """How many stages of the planned ones have feature maps that are large enough."""
    stages = 1
    while stages < planned and min(patch_size) // 2**stages >= SMALLEST_MAP:
        stages += 1
    return stages


def keep_stages(network: dict, stages: int) -> None:
    """Leave so many stages in a network's settings, the deepest no wider than the one above."""
    for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
        network[key] = network[key][:stages]
    network["n_conv_per_stage_decoder"] = network["n_conv_per_stage_decoder"][: stages - 1]
    network["n_stages"] = stages
    network["features_per_stage"][-1] = network["features_per_stage"][-2]


def main() -> None:
    """Add the configuration that the command line names to a data set's plans."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("configuration", choices=SMALL)
    args = parser.parse_args()
    path = args.folder / "nnUNetPlans.json"
    plans = json.loads(path.read_text(encoding="utf-8"))
    configurations = plans["configurations"]
    configurations[args.configuration] = reduce_configuration(configurations, args.configuration)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(plans, indent=4), encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
