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

PLANS = {"default": "nnUNetPlans", "resenc": "nnUNetResEncUNetMPlans", "anisotropic": "nnUNetAnisotropicPlans"}


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
        sitk.WriteImage(image, str(folder / ("imagesTs" if case == cases[-1] else "imagesTr") / case))
        if case != cases[-1]:
            sitk.WriteImage(sitk.GetImageFromArray(labels.astype(np.uint8)), str(folder / "labelsTr" / case))
    entries = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "shell", "2": "core", "3": "speck"}}
    counts = {"numTraining": NUM_TRAINING, "numTest": 1, "training": cases[:-1], "test": cases[-1:]}
    write_json(folder / "dataset.json", {"name": "Blobs", "tensorImageSize": "3D", **entries, **counts})
    return folder


def write_fingerprint(dataset_id: int) -> None:
    """What planning reads; nnU-Net's command would draw 100 million voxels for it."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    extractor = DatasetFingerprintExtractor(dataset_id, num_processes=1)
    extractor.num_foreground_voxels_for_intensitystats = 10_000
    extractor.run()


def copy_with_label_space(converted: Path, planned: Path, label_space: str) -> Path:
    """The converted and planned data set once more, with labels of another meaning; the folder of its plans."""
    name = f"Dataset{DATASET_IDS[label_space]}_{label_space.title().replace('_', '')}"
    shutil.copytree(converted, converted.with_name(name))
    copied = planned.with_name(name)
    copied.mkdir()
    # Planning looks at images only, and so does the fingerprint.
    shutil.copy(planned / "dataset_fingerprint.json", copied)
    description = {**read_json(converted / "dataset.json"), **LABEL_SPACES[label_space]}
    for folder in (converted.with_name(name), copied):
        write_json(folder / "dataset.json", description)
    plans = read_json(planned / f"{PLANS['default']}.json")
    write_json(copied / f"{PLANS['default']}.json", {**plans, "dataset_name": name})
    return copied


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
    stages = 4  # three outputs of the decoder: the deep supervision gives the last one no weight
    settings.update(n_stages=stages, features_per_stage=[4, 8, 8, 8], kernel_sizes=[[3] * num_axes] * stages)
    settings["strides"] = [[1] * num_axes] + [[2] * num_axes] * (stages - 1)
    for depth in {"n_conv_per_stage", "n_blocks_per_stage"} & settings.keys():
        settings[depth] = [1] * stages
    settings["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    return shrunk | {"patch_size": [16] * num_axes, "batch_size": 2}


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
