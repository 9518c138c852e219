"""Logits of a network and all that nnU-Net's export needs beside them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from tests.runs.folders import CLASSES, REGIONS

DATASETS: dict[str, dict[str, Any]] = {
    "classes": {"labels": CLASSES},
    "regions": {"labels": REGIONS, "regions_class_order": [1, 2]},
}


class Export(NamedTuple):
    """The arguments of nnU-Net's ``export_prediction_from_logits``, in its order, but for the output."""

    logits: torch.Tensor
    properties: dict[str, Any]
    configuration_manager: Any
    plans_manager: Any
    dataset_json: dict[str, Any]


def make_export(kind: str = "classes", *, cropped: tuple[int, ...] = (9, 11, 5), seed: int = 0) -> Export:
    """Half-precision logits on a coarser grid, of an image of (7, 12, 14) voxels, transposed and cropped."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    plans = {
        "dataset_name": "Dataset999_Synthetic",
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": [1, 2, 0],
        "transpose_backward": [2, 0, 1],
        "configurations": {
            "3d_fullres": {
                "data_identifier": "nnUNetPlans_3d_fullres",
                "spacing": [1.5, 1.0, 2.0],
                "architecture": {},
                "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
                "resampling_fn_probabilities_kwargs": resampling,
            }
        },
    }
    manager = PlansManager(plans)
    channels = 3 if kind == "classes" else 2
    shape = tuple(max(1, round(n * f)) for n, f in zip(cropped, (0.6, 1, 1)))
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(scale=6, size=(channels, *shape)).astype(np.float16))
    spacing = [2.0, 0.9, 1.0]
    in_space = {"spacing": tuple(spacing[::-1]), "origin": (0.0,) * 3, "direction": tuple(np.eye(3).ravel())}
    start = (1, 2, 1)
    properties = {
        "spacing": spacing,
        "sitk_stuff": in_space,
        "shape_before_cropping": (12, 14, 7),
        "bbox_used_for_cropping": [[low, low + n] for low, n in zip(start, cropped)],
        "shape_after_cropping_and_before_resampling": cropped,
    }
    dataset_json = {"file_ending": ".nii.gz", "channel_names": {"0": "MRI"}, **DATASETS[kind]}
    return Export(logits, properties, manager.get_configuration("3d_fullres"), manager, dataset_json)
