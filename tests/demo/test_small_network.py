"""The small configuration is one that nnU-Net itself resolves and builds."""

from __future__ import annotations

import json

import pytest

from nnunet_nacl.demo.small_network import add_small_configuration, parent_configuration
from nnunet_nacl.errors import UserError


def architecture(dimensions: int, features: list[int]) -> dict:
    stages = len(features)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": features,
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": [[3] * dimensions] * stages,
            "strides": [[1] * dimensions] + [[2] * dimensions] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


@pytest.fixture
def plans_file(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(
        json.dumps(
            {
                "dataset_name": "Dataset001_A",
                "plans_name": "nnUNetPlans",
                "configurations": {
                    "2d": {
                        "data_identifier": "nnUNetPlans_2d",
                        "batch_size": 281,
                        "patch_size": [32, 32],
                        "spacing": [1, 1],
                        "architecture": architecture(2, [32, 64, 128, 256, 512, 512]),
                    },
                    "3d_fullres": {
                        "data_identifier": "nnUNetPlans_3d_fullres",
                        "batch_size": 7,
                        "patch_size": [16, 16, 16],
                        "spacing": [1, 1, 1],
                        "architecture": architecture(3, [32, 64]),
                    },
                },
            }
        )
    )
    return path


def test_it_inherits_everything_but_batch_and_features(plans_file):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    before = json.loads(plans_file.read_text())["configurations"]
    name, described = add_small_configuration(plans_file)
    assert name == "2d_small" and "16 instead of 281" in described and "12/24/48/96/192/192" in described
    assert {k: v for k, v in json.loads(plans_file.read_text())["configurations"].items() if k != name} == before
    small = PlansManager(str(plans_file)).get_configuration(name)
    assert (small.batch_size, small.data_identifier, small.patch_size) == (16, "nnUNetPlans_2d", [32, 32])
    assert small.network_arch_init_kwargs["features_per_stage"] == [12, 24, 48, 96, 192, 192]


def test_nnunet_builds_the_network(plans_file):
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    name, _ = add_small_configuration(plans_file, "3d_fullres")
    small = PlansManager(str(plans_file)).get_configuration(name)
    network = get_network_from_plans(
        small.network_arch_class_name,
        small.network_arch_init_kwargs,
        small.network_arch_init_kwargs_req_import,
        1,
        3,
        deep_supervision=False,
    )
    assert network(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 3, 16, 16, 16)
    assert small.batch_size == 2


def test_adding_it_twice_changes_nothing(plans_file):
    add_small_configuration(plans_file)
    before = plans_file.stat().st_mtime_ns
    add_small_configuration(plans_file)
    assert plans_file.stat().st_mtime_ns == before
    assert [path.name for path in plans_file.parent.iterdir()] == [plans_file.name]


def test_an_unplanned_parent_is_an_error(plans_file):
    with pytest.raises(UserError, match="3d_lowres.*2d, 3d_fullres"):
        add_small_configuration(plans_file, "3d_lowres")


def test_the_parent_is_what_is_preprocessed():
    assert parent_configuration("2d_small") == "2d"
    assert parent_configuration("3d_fullres") == "3d_fullres"
