"""Plans and dataset.json as nnU-Net writes them, cut down to what its trainers read."""

from __future__ import annotations

DATASET = "Dataset910_Plans"

LABEL_SPACES = {
    "classes": {"labels": {"background": 0, "a": 1, "b": 2}},
    "ignore": {"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}},
    "regions": {
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "regions_class_order": [1, 2],
    },
    "regions_ignore": {
        "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
        "regions_class_order": [1, 2],
    },
}


def dataset_json(label_space: str = "classes") -> dict:
    return {
        "channel_names": {"0": "MRI"},
        "numTraining": 5,
        "file_ending": ".nii.gz",
        **LABEL_SPACES[label_space],
    }


def architecture(
    kind: str = "plain",
    num_axes: int = 3,
    features: tuple[int, ...] = (4, 8),
    first_kernel: list[int] | None = None,
) -> dict:
    """An entry ``architecture``: a U-Net, ``plain`` or ``residual``, with a stage for each number
    of channels."""
    stages = len(features)
    kernels = [[3] * num_axes for _ in range(stages)]
    if first_kernel is not None:
        kernels[0] = first_kernel
    unet = "PlainConvUNet"
    blocks = "n_conv_per_stage"
    if kind == "residual":
        unet = "ResidualEncoderUNet"
        blocks = "n_blocks_per_stage"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{unet}",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(features),
            "kernel_sizes": kernels,
            "conv_op": f"torch.nn.modules.conv.Conv{num_axes}d",
            "strides": [[1] * num_axes] + [[2] * num_axes for _ in range(stages - 1)],
            blocks: [1] * stages,
            "n_conv_per_stage_decoder": [1] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{num_axes}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def resampling() -> dict:
    """How a configuration resamples images, labels and probabilities."""
    settings = {}
    for image, order in (("data", 3), ("seg", 1), ("probabilities", 1)):
        settings[f"resampling_fn_{image}"] = "resample_data_or_seg_to_shape"
        settings[f"resampling_fn_{image}_kwargs"] = {
            "is_seg": image == "seg",
            "order": order,
            "order_z": 0,
            "force_separate_z": None,
        }
    return settings


def make_plans(
    num_axes: int = 2, first_kernel: list[int] | None = None, residual: bool = False
) -> dict:
    """A plans dictionary of one configuration, ``2d`` or ``3d_fullres``; always a fresh one.

    nnU-Net takes ``continue_training`` out of it, so no two trainers can be made from the same one.
    """
    name = "2d" if num_axes == 2 else "3d_fullres"
    network = architecture(
        "residual" if residual else "plain", num_axes, (4, 8, 8, 8), first_kernel
    )
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "configurations": {
            name: {
                "data_identifier": f"nnUNetPlans_{name}",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [16] * num_axes,
                "spacing": [1.0] * num_axes,
                "batch_dice": num_axes == 2,
                "architecture": network,
                **resampling(),
            }
        },
        "continue_training": False,
    }
