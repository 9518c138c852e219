"""Model folders with networks of a few channels and predictions to calibrate on, as nnU-Net leaves
them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.estimators.log_odds_map import map_from_tables
from nnunet_nacl.utilities.files import checksum
from nnunet_nacl.utilities.json_files import encode, read_dict
from tests.runs.folders import Model, make_model, write_json
from tests.trainers.plans import architecture, make_plans


def make_network(kind: str, num_classes: int, seed: int = 0) -> torch.nn.Module:
    """A network as nnU-Net builds it, its weights random."""
    torch.manual_seed(seed)
    if kind == "primus":
        from dynamic_network_architectures.architectures.primus import Primus

        return Primus(
            1, 24, (4, 4, 4), num_classes, eva_depth=1, eva_numheads=2, input_shape=(8, 8, 8)
        )
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    made = architecture(kind)
    return get_network_from_plans(
        made["network_class_name"],
        made["arch_kwargs"],
        made["_kw_requires_import"],
        1,
        num_classes,
        deep_supervision=False,
    )


def make_trained(root: Path, *, kind: str = "plain", **arguments) -> Model:
    """What ``make_model`` writes, with a checkpoint older than the predictions in each fold."""
    model = make_model(root, **arguments)
    plans = read_dict(model.folder / "plans.json")
    plans["foreground_intensity_properties_per_channel"] = {"0": {}}
    plans["configurations"]["3d_fullres"] = make_plans(3)["configurations"]["3d_fullres"] | {
        "patch_size": [8, 8, 8],
        "spacing": [2.0, 1.0, 0.5],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": architecture(kind),
    }
    write_json(model.folder / "plans.json", plans)
    regions = any(
        isinstance(value, list)
        for value in read_dict(model.folder / "dataset.json")["labels"].values()
    )
    for seed, fold in enumerate(sorted(model.folder.glob("fold_*"))):
        network = make_network(kind, 2 if regions else 3, seed)
        path = fold / "checkpoint_final.pth"
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": (0,),
        }
        torch.save(checkpoint, path)
        os.utime(path, (1, 1))
    return model


def map_to_json(*arguments) -> dict[str, Any]:
    """What a file holds that applies maps: see :meth:`CalibrationMap.of_maps`."""
    return encode(CalibrationMap.of_maps(*arguments))


def give_map(model: Model) -> dict[str, Any]:
    """Give a model of two folds the least map that is one of its networks; what the file holds."""
    calibration = map_from_tables(
        [[0.6, 0.7], [0.8, 0.9], [1.1, 1.2]], [[-0.1, 0.1], [-0.2, 0.2], [-0.3, 0.3]]
    )
    content = map_to_json(
        {"conditional": calibration}, "conditional", {"1": "anterior", "2": "posterior"}
    )
    hashes = {
        fold: checksum(model.folder / f"fold_{fold}" / "checkpoint_final.pth") for fold in "01"
    }
    content |= {
        "labels": ["background", "anterior", "posterior"],
        "folds": ["0", "1"],
        "n_cases": 12,
    }
    content |= {"checkpoint_sha256": hashes}
    write_json(model.folder / "calibration_map.json", content)
    return content
