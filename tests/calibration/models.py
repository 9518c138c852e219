"""Model folders with networks of a few channels and predictions to calibrate on, as nnU-Net leaves them."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from nnunet_nacl.json_files import read_dict
from tests.cases.folders import Model, make_model, write_json

KINDS = ("plain", "residual", "primus")


def architecture(kind: str) -> dict:
    """An entry ``architecture`` of plans.json."""
    common = {
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    unet = "dynamic_network_architectures.architectures.unet."
    name, own = {
        "plain": (f"{unet}PlainConvUNet", {"n_conv_per_stage": [1, 1]}),
        "residual": (f"{unet}ResidualEncoderUNet", {"n_blocks_per_stage": [1, 1]}),
    }[kind]
    return {
        "network_class_name": name,
        "arch_kwargs": common | own,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def make_network(kind: str, num_classes: int, seed: int = 0) -> torch.nn.Module:
    """A network as nnU-Net builds it, its weights random."""
    torch.manual_seed(seed)
    if kind == "primus":
        from dynamic_network_architectures.architectures.primus import Primus

        return Primus(1, 24, (4, 4, 4), num_classes, eva_depth=1, eva_numheads=2, input_shape=(8, 8, 8))
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
    plans["configurations"]["3d_fullres"] = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 8, 8],
        "spacing": [2.0, 1.0, 0.5],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "architecture": architecture(kind),
        "batch_dice": False,
    } | {
        f"resampling_fn_{what}{ending}": value
        for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))
        for ending, value in (
            ("", "resample_data_or_seg_to_shape"),
            ("_kwargs", {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}),
        )
    }
    write_json(model.folder / "plans.json", plans)
    regions = any(isinstance(value, list) for value in read_dict(model.folder / "dataset.json")["labels"].values())
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
