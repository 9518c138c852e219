"""Data sets of a few small blobs, in every label space that nnU-Net has, and plans that train in a second.

One Decathlon task is generated and converted; the other label spaces are the same cases under another dataset.json.
nnU-Net plans none of its larger configurations for data so small: they are written into the plans here.
"""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk

NUM_TRAINING = 5
TASK_ID = 901

LABEL_SPACES = {
    "classes": {"labels": {"background": 0, "shell": 1, "core": 2, "speck": 3}},
    "ignore": {"labels": {"background": 0, "shell": 1, "core": 2, "ignore": 3}},
    "regions": {
        "labels": {"background": 0, "whole": [1, 2, 3], "inner": [2, 3], "speck": 3},
        "regions_class_order": [1, 2, 3],
    },
    "regions_ignore": {
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
    },
}
DATASET_IDS = {name: TASK_ID + number for number, name in enumerate(LABEL_SPACES)}
THICK_SLICES_ID = 905

PLANS = {"default": "nnUNetPlans", "resenc": "nnUNetResEncUNetMPlans", "anisotropic": "nnUNetAnisotropicPlans"}


def make_task(folder: Path, shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], seed: int) -> Path:
    """A Decathlon task: balls with a core and a speck in noise, arrays of ``shape`` (z, y, x)."""
    rng = np.random.default_rng(seed)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    size_mm = np.array(shape) * spacing_mm
    position_mm = np.indices(shape) * np.reshape(spacing_mm, (3, 1, 1, 1))
    cases = [f"blob_{number:03d}" for number in range(1, NUM_TRAINING + 2)]
    for case in cases:
        center_mm = size_mm * rng.uniform(0.4, 0.6, 3)
        distance_mm = np.linalg.norm(position_mm - center_mm.reshape(3, 1, 1, 1), axis=0)
        radius_mm = size_mm.min() * rng.uniform(0.3, 0.38)
        labels = (distance_mm < radius_mm).astype(np.uint8) + (distance_mm < 0.6 * radius_mm)
        labels[distance_mm < 0.3 * radius_mm] = 3
        image = sitk.GetImageFromArray((100 * labels + rng.normal(0, 25, shape)).astype(np.float32))
        truth = sitk.GetImageFromArray(labels.astype(np.uint8))
        for volume in (image, truth):
            volume.SetSpacing(tuple(float(step) for step in spacing_mm[::-1]))
        if case == cases[-1]:
            sitk.WriteImage(image, str(folder / "imagesTs" / f"{case}.nii.gz"))
        else:
            sitk.WriteImage(image, str(folder / "imagesTr" / f"{case}.nii.gz"))
            sitk.WriteImage(truth, str(folder / "labelsTr" / f"{case}.nii.gz"))
    files = [{"image": f"./imagesTr/{case}.nii.gz", "label": f"./labelsTr/{case}.nii.gz"} for case in cases[:-1]]
    write_json(
        folder / "dataset.json",
        {
            "name": "Blobs",
            "description": "generated",
            "tensorImageSize": "3D",
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "shell", "2": "core", "3": "speck"},
            "numTraining": NUM_TRAINING,
            "numTest": 1,
            "training": files,
            "test": [f"./imagesTs/{cases[-1]}.nii.gz"],
        },
    )
    return folder


def write_fingerprint(dataset_id: int) -> None:
    """What planning reads; nnU-Net's command would draw 100 million voxels for it."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    extractor = DatasetFingerprintExtractor(dataset_id, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 10_000
    extractor.run()


def copy_with_label_space(converted: Path, planned: Path, label_space: str) -> Path:
    """The converted and planned data set once more, with labels of another meaning; its plans."""
    name = f"Dataset{DATASET_IDS[label_space]}_{label_space.title().replace('_', '')}"
    shutil.copytree(converted, converted.with_name(name))
    copied = planned.with_name(name)
    copied.mkdir()
    # Planning looks at images only, and so does the fingerprint.
    shutil.copy(planned / "dataset_fingerprint.json", copied)
    description = {**read_json(converted / "dataset.json"), **LABEL_SPACES[label_space]}
    for folder in (converted.with_name(name), copied):
        write_json(folder / "dataset.json", description)
    plans_file = copied / f"{PLANS['default']}.json"
    write_json(plans_file, {**read_json(planned / plans_file.name), "dataset_name": name})
    return plans_file


def shrink_plans(plans_file: Path) -> None:
    """Networks of a few channels and small patches, whatever nnU-Net planned."""
    plans = read_json(plans_file)
    for name, configuration in plans["configurations"].items():
        if "architecture" in configuration:
            plans["configurations"][name] = _shrunk(configuration)
    # In these data slices are in line with volumes: one preprocessing does for both.
    plans["configurations"]["2d"]["data_identifier"] = plans["configurations"]["3d_fullres"]["data_identifier"]
    write_json(plans_file, plans)


def add_low_resolution_and_cascade(plans_file: Path) -> None:
    """3d_lowres and 3d_cascade_fullres as nnU-Net's planner writes them for larger images."""
    plans = read_json(plans_file)
    full = plans["configurations"]["3d_fullres"]
    low = copy.deepcopy(full)
    low["data_identifier"] = "nnUNetPlans_3d_lowres"
    low["spacing"] = [2 * step for step in full["spacing"]]
    low["median_image_size_in_voxels"] = [round(size / 2) for size in full["median_image_size_in_voxels"]]
    low["batch_dice"] = False
    low["next_stage"] = "3d_cascade_fullres"
    full["batch_dice"] = True
    plans["configurations"]["3d_lowres"] = low
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    write_json(plans_file, plans)


def add_plans_of_other_kind(plans_file: Path, residual_plans_file: Path) -> None:
    """Beside the default plans residual-encoder ones and anisotropic ones, on the same preprocessed data."""
    default = read_json(plans_file)
    residual_plans = read_json(residual_plans_file)
    residual, anisotropic = copy.deepcopy(default), copy.deepcopy(default)
    residual["plans_name"], anisotropic["plans_name"] = PLANS["resenc"], PLANS["anisotropic"]
    for name, configuration in residual["configurations"].items():
        if "architecture" in configuration:
            planned = "2d" if name == "2d" else "3d_fullres"
            configuration["architecture"] = copy.deepcopy(residual_plans["configurations"][planned]["architecture"])
    for configuration in anisotropic["configurations"].values():
        if "architecture" in configuration:
            settings = configuration["architecture"]["arch_kwargs"]
            settings["kernel_sizes"][0][0] = 1
            settings["strides"][1][0] = 1
    for plans in (residual, anisotropic):
        write_json(plans_file.with_name(f"{plans['plans_name']}.json"), plans)


def _shrunk(configuration: dict) -> dict:
    shrunk = copy.deepcopy(configuration)
    settings = shrunk["architecture"]["arch_kwargs"]
    num_axes = len(configuration["patch_size"])
    # Three outputs of the decoder: the deep supervision gives the last one no weight.
    stages = 4
    thin = [1 if settings["kernel_sizes"][stage][0] == 1 else 0 for stage in range(2)]  # of thick slices
    kernels = [[3] * num_axes for _ in range(stages)]
    strides = [[1] * num_axes] + [[2] * num_axes for _ in range(stages - 1)]
    for stage in range(2):
        if num_axes == 3 and thin[stage]:
            kernels[stage][0] = strides[stage + 1][0] = 1
    settings.update(n_stages=stages, features_per_stage=[4, 8, 8, 8], kernel_sizes=kernels, strides=strides)
    for depth in ("n_conv_per_stage", "n_blocks_per_stage"):
        if depth in settings:
            settings[depth] = [1] * stages
    settings["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    shrunk["patch_size"] = [8 if num_axes == 3 and axis == 0 and thin[0] else 16 for axis in range(num_axes)]
    shrunk["batch_size"] = 2
    return shrunk


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
