"""Data sets of a few small blobs in every label space, and plans that train in a second.

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

from nnunet_nacl.utilities.json_files import read_dict as read_json
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
    rng = np.random.default_rng(1)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    *training_cases, test_case = [f"blob_{n:03d}.nii.gz" for n in range(1, NUM_TRAINING + 2)]
    for case in training_cases:
        image, labels = make_blob(rng)
        write_volume(image, folder / "imagesTr" / case)
        write_volume(labels, folder / "labelsTr" / case)
    image, _ = make_blob(rng)
    write_volume(image, folder / "imagesTs" / test_case)
    description = {
        "name": "Blobs",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "shell", "2": "core", "3": "speck"},
        "numTraining": NUM_TRAINING,
        "numTest": 1,
        "training": training_cases,
        "test": [test_case],
    }
    write_json(folder / "dataset.json", description)
    return folder


def make_blob(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels of a ball: shell 1, core 2 and speck 3, brighter from one to the next."""
    shape = np.array([20, 22, 24])
    center = shape * rng.uniform(0.4, 0.6, 3)
    distance = np.linalg.norm(np.indices(shape) - center.reshape(3, 1, 1, 1), axis=0)
    radius = shape.min() * rng.uniform(0.3, 0.38)
    labels = np.sum([distance < share * radius for share in (1, 0.6, 0.3)], axis=0)
    image = 100 * labels + rng.normal(0, 25, shape)
    return image.astype(np.float32), labels.astype(np.uint8)


def write_volume(array: np.ndarray, path: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def write_fingerprint(dataset_id: int) -> None:
    """What planning reads; nnU-Net's command would draw 100 million voxels for it."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    extractor = DatasetFingerprintExtractor(dataset_id, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 10_000
    extractor.run()


def copy_with_label_space(converted: Path, planned: Path, label_space: str) -> Path:
    """Copy the converted data set with labels of another meaning.

    Returns:
        The copy's folder in nnUNet_preprocessed, for its plans.
    """
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
            num_axes = len(configuration["patch_size"])
            shrink_network(configuration["architecture"]["arch_kwargs"], num_axes)
            configuration |= {"patch_size": [16] * num_axes, "batch_size": 2}
    # In these data slices are in line with volumes: one preprocessing does for both.
    configurations["2d"]["data_identifier"] = configurations["3d_fullres"]["data_identifier"]


def shrink_network(settings: dict, num_axes: int) -> None:
    """Change a network's settings to four stages of a few channels.

    The decoder has three outputs then, of which the deep supervision gives the last no weight.
    """
    stages = 4
    settings["n_stages"] = stages
    settings["features_per_stage"] = [4, 8, 8, 8]
    settings["kernel_sizes"] = [[3] * num_axes for _ in range(stages)]
    settings["strides"] = [[1] * num_axes, *([2] * num_axes for _ in range(stages - 1))]
    for depth in {"n_conv_per_stage", "n_blocks_per_stage"} & settings.keys():
        settings[depth] = [1] * stages
    settings["n_conv_per_stage_decoder"] = [1] * (stages - 1)


def plans_of_every_kind(default: dict, residual: dict) -> list[dict]:
    """nnU-Net's default plans, small and with a cascade; then residual and anisotropic ones."""
    for plans in (default, residual):
        shrink(plans)
    add_cascade(default["configurations"])

    deep = copy.deepcopy(default) | {"plans_name": PLANS["resenc"]}
    thin = copy.deepcopy(default) | {"plans_name": PLANS["anisotropic"]}
    for name in ("2d", "3d_fullres", "3d_lowres"):
        planned = residual["configurations"]["2d" if name == "2d" else "3d_fullres"]
        deep["configurations"][name]["architecture"] = planned["architecture"]
        settings = thin["configurations"][name]["architecture"]["arch_kwargs"]
        settings["kernel_sizes"][0][0] = 1
        settings["strides"][1][0] = 1
    return [default, deep, thin]


def add_cascade(configurations: dict) -> None:
    """Add the two configurations of a cascade, as nnU-Net's planner does for larger images."""
    full = configurations["3d_fullres"]
    low = copy.deepcopy(full)
    low["data_identifier"] = "nnUNetPlans_3d_lowres"
    low["batch_dice"] = False
    low["spacing"] = [2 * step for step in full["spacing"]]
    full_size = full["median_image_size_in_voxels"]
    low["median_image_size_in_voxels"] = [round(size / 2) for size in full_size]
    low["next_stage"] = "3d_cascade_fullres"
    full["batch_dice"] = True
    configurations["3d_lowres"] = low
    configurations["3d_cascade_fullres"] = {
        "inherits_from": "3d_fullres",
        "previous_stage": "3d_lowres",
    }
