"""Data sets of a few small blobs, in every label space that nnU-Net has, and plans that train in a
second.

One Decathlon task is generated and converted; the other label spaces are the same cases under
another dataset.json. nnU-Net plans none of its larger configurations for data so small: they are
written into the plans here.
"""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_nacl.json_files import read_dict as read_json
from tests.runs.folders import write_json
from tests.trainers.plans import LABEL_SPACES as PLAIN_SPACES

NUM_TRAINING = 5
TASK_ID = 901

LABEL_SPACES = PLAIN_SPACES | {
    "classes": {"labels": {"background": 0, "shell": 1, "core": 2, "speck": 3}},
    "regions": {
        "labels": {"background": 0, "whole": [1, 2, 3], "inner": [2, 3], "speck": 3},
        "regions_class_order": [1, 2, 3],
    },
}
DATASET_IDS = {name: TASK_ID + number for number, name in enumerate(LABEL_SPACES)}
PLANS = {
    "default": "nnUNetPlans",
    "resenc": "nnUNetResEncUNetMPlans",
    "anisotropic": "nnUNetAnisotropicPlans",
}


def make_task(folder: Path) -> Path:
    """A Decathlon task: balls with a core and a speck in noise."""
    rng, shape = np.random.default_rng(1), np.array([20, 22, 24])
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    cases = [f"blob_{number:03d}.nii.gz" for number in range(1, NUM_TRAINING + 2)]
    for case in cases:
        center = shape * rng.uniform(0.4, 0.6, 3)
        distance = np.linalg.norm(np.indices(shape) - center.reshape(3, 1, 1, 1), axis=0)
        radius = shape.min() * rng.uniform(0.3, 0.38)
        labels = np.sum([distance < share * radius for share in (1, 0.6, 0.3)], axis=0)
        image = sitk.GetImageFromArray((100 * labels + rng.normal(0, 25, shape)).astype(np.float32))
        sitk.WriteImage(
            image, str(folder / ("imagesTs" if case == cases[-1] else "imagesTr") / case)
        )
        if case != cases[-1]:
            sitk.WriteImage(
                sitk.GetImageFromArray(labels.astype(np.uint8)), str(folder / "labelsTr" / case)
            )
    entries = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "shell", "2": "core", "3": "speck"},
    }
    counts = {"numTraining": NUM_TRAINING, "numTest": 1, "training": cases[:-1], "test": cases[-1:]}
    write_json(
        folder / "dataset.json", {"name": "Blobs", "tensorImageSize": "3D", **entries, **counts}
    )
    return folder


def write_fingerprint(dataset_id: int) -> None:
    """What planning reads; nnU-Net's command would draw 100 million voxels for it."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    extractor = DatasetFingerprintExtractor(dataset_id, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 10_000
    extractor.run()


def copy_with_label_space(converted: Path, planned: Path, label_space: str) -> Path:
    """The converted data set once more, with labels of another meaning; the folder for its
    plans."""
    name = f"Dataset{DATASET_IDS[label_space]}_{label_space.title().replace('_', '')}"
    shutil.copytree(converted, converted.with_name(name))
    copied = planned.with_name(name)
    copied.mkdir()
    # Planning looks at images only, and so does the fingerprint.
    shutil.copy(planned / "dataset_fingerprint.json", copied)
    description = {**read_json(converted / "dataset.json"), **LABEL_SPACES[label_space]}
    for folder in (converted.with_name(name), copied):
        write_json(folder / "dataset.json", description)
    return copied


def shrink(plans: dict) -> None:
    """Networks of a few channels and small patches, whatever nnU-Net planned."""
    configurations = plans["configurations"]
    for configuration in configurations.values():
        if "architecture" in configuration:
            settings, num_axes = (
                configuration["architecture"]["arch_kwargs"],
                len(configuration["patch_size"]),
            )
            # three outputs of the decoder: the deep supervision gives the last one no weight
            stages = 4
            settings |= {"n_stages": stages, "features_per_stage": [4, 8, 8, 8]}
            settings["kernel_sizes"] = [[3] * num_axes for _ in range(stages)]
            settings["strides"] = [[1] * num_axes, *([2] * num_axes for _ in range(stages - 1))]
            for depth in {"n_conv_per_stage", "n_blocks_per_stage"} & settings.keys():
                settings[depth] = [1] * stages
            settings["n_conv_per_stage_decoder"] = [1] * (stages - 1)
            configuration |= {"patch_size": [16] * num_axes, "batch_size": 2}
    # In these data slices are in line with volumes: one preprocessing does for both.
    configurations["2d"]["data_identifier"] = configurations["3d_fullres"]["data_identifier"]


def plans_of_every_kind(default: dict, residual: dict) -> list[dict]:
    """nnU-Net's plans with a cascade, as its planner writes them for larger images; residual and
    anisotropic ones."""
    for plans in (default, residual):
        shrink(plans)
    full = default["configurations"]["3d_fullres"]
    low = copy.deepcopy(full) | {"data_identifier": "nnUNetPlans_3d_lowres", "batch_dice": False}
    low["spacing"] = [2 * step for step in full["spacing"]]
    low["median_image_size_in_voxels"] = [
        round(size / 2) for size in full["median_image_size_in_voxels"]
    ]
    full["batch_dice"] = True
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    default["configurations"] |= {
        "3d_lowres": low | {"next_stage": "3d_cascade_fullres"},
        "3d_cascade_fullres": cascade,
    }
    deep, thin = copy.deepcopy(default), copy.deepcopy(default)
    deep["plans_name"], thin["plans_name"] = PLANS["resenc"], PLANS["anisotropic"]
    for name in ("2d", "3d_fullres", "3d_lowres"):
        planned = residual["configurations"][name if name == "2d" else "3d_fullres"]
        deep["configurations"][name]["architecture"] = planned["architecture"]
        settings = thin["configurations"][name]["architecture"]["arch_kwargs"]
        settings["kernel_sizes"][0][0] = settings["strides"][1][0] = 1
    return [default, deep, thin]
