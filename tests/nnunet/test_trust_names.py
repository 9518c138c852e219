"""What plans.json, dataset.json and checkpoints name is called by nnU-Net only if it is of the kind that is meant."""

from __future__ import annotations

import copy
import json
import sys
from importlib import import_module
from types import FunctionType
from typing import Any

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.trust import check_model, find_reader, label_manager_of
from tests.nnunet.untrained import plans_json
from tests.numbers.models import architecture

CHANNELS = {"channel_names": {"0": "CT", "1": "PET"}, "file_ending": ".nii.gz", "labels": {"background": 0, "a": 1}}
NETWORKS = "dynamic_network_architectures.architectures"
PRIMUS = {"embed_dim": 24, "patch_embed_size": [4, 4, 4], "input_shape": [8, 8, 8], "eva_depth": 1, "eva_numheads": 2}


def check(changes: dict[str, Any], configuration: str = "3d_fullres") -> None:
    """Judge a model whose files have other values at places such as ``configuration.preprocessor_name``."""
    plans, dataset, checkpoint = plans_json(), copy.deepcopy(CHANNELS), {"trainer_name": "nnUNetTrainer"}
    checkpoint["init_args"] = {"configuration": configuration}
    settings = plans["configurations"]["3d_fullres"]
    files = {"plans": plans, "configuration": settings, "dataset": dataset, "checkpoint": checkpoint}
    files |= {"network": settings["architecture"], "arguments": settings["architecture"]["arch_kwargs"]}
    for place, value in changes.items():
        file, _, key = place.partition(".")
        files[file][key] = value
    check_model(plans, dataset, checkpoint, "FOLDER")


@pytest.mark.parametrize(
    "place, name",
    [
        ("network.network_class_name", "unittest.mock.Mock"),
        ("network.network_class_name", "harmful.Network"),
        ("network.network_class_name", f"{NETWORKS}.unet.nn.modules.module.torch.os.system"),
        ("network.network_class_name", f"{NETWORKS}.unet.nn.Parameter"),  # a class, and no network
        ("network.network_class_name", f"{NETWORKS}.moved.rearrange"),  # where nnU-Net searches next
        ("network.network_class_name", ".harmful.Network"),
        ("network.network_class_name", ""),
        ("arguments.nonlin", "os.system"),
        ("arguments.nonlin", "torch.nn.modules.module.torch.os.system"),
        ("arguments.nonlin", "torch.nn.modules.module.torch.fx.GraphModule"),  # a module that compiles text
        ("arguments.nonlin", "harmful.layer"),
        ("configuration.preprocessor_name", "multiprocessing"),
        ("configuration.normalization_schemes", ["ZScoreNormalization", "number"]),
        ("configuration.resampling_fn_data", "deepcopy"),
        ("configuration.resampling_fn_seg", "recursive_find_python_class"),
        ("configuration.resampling_fn_probabilities", "SimpleITKIO"),
        ("configuration.data_identifier", "../../nnUNet_results/Dataset999_Synthetic/model"),
        ("configuration.data_identifier", "/data"),
        ("plans.dataset_name", ".."),
        ("plans.label_manager", "softmax_helper_dim0"),
        ("plans.image_reader_writer", "sitk"),
        ("dataset.overwrite_image_reader_writer", "Tuple"),
        ("checkpoint.trainer_name", "PlansManager"),
    ],
)
def test_what_is_something_else_is_refused_and_not_even_imported(place, name, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "harmful", raising=False)
    (tmp_path / "harmful.py").write_text("import torch\nclass Network(torch.nn.Module):\n    pass\nlayer = Network\n")
    with pytest.raises(UserError) as caught:
        check({place: name}, "3d_cascade_fullres")  # which inherits from the other
    message, key, refused = str(caught.value), place.partition(".")[2], name[-1] if isinstance(name, list) else name
    assert f"FOLDER: {key} is {refused!r}, which does not belong there: " in message
    assert "it can run code. If you know who made it, pass --trust_checkpoint; else do not use it." in message
    assert "\n" not in message and "harmful" not in sys.modules


def test_a_preprocessor_that_there_is_not_is_told():
    with pytest.raises(UserError, match="FOLDER: nnU-Net has no preprocessor_name 'TheirPreprocessor'; repair"):
        check({"configuration.preprocessor_name": "TheirPreprocessor"})


def test_a_layer_that_the_plans_do_not_have_imported_is_judged_all_the_same():
    with pytest.raises(UserError, match="conv_op is 'harmful.layer', which "):  # nnUNetTrainerBN would import it
        check({"network._kw_requires_import": [], "arguments.conv_op": "harmful.layer"})


def of_package(package: str, module: str, base: str | None) -> list[str]:
    """The classes or functions that a module of nnU-Net defines or, for classes, has from others of the package."""
    found = vars(import_module(f"{package}.{module}"))
    if base is None:
        return [name for name, value in found.items() if isinstance(value, FunctionType) and name.startswith("resam")]
    return [name for name, value in found.items() if isinstance(value, type) and issubclass(value, found[base])]


READERS = of_package("nnunetv2.imageio", "reader_writer_registry", "BaseReaderWriter")
SCHEMES = of_package("nnunetv2.preprocessing.normalization", "default_normalization_schemes", "ImageNormalization")
RESAMPLING = of_package("nnunetv2.preprocessing.resampling", "default_resampling", None)
RESAMPLING += of_package("nnunetv2.preprocessing.resampling", "resample_torch", None)


@pytest.mark.parametrize(
    "changes",
    [
        {"network." + key: value for key, value in architecture("residual").items()},
        {"network.network_class_name": f"{NETWORKS}.primus.Primus", "network.arch_kwargs": PRIMUS},
        {"network.network_class_name": f"{NETWORKS}.residual_unet.ResidualEncoderUNet"},  # which has moved since
        {"network.network_class_name": "nnunet_nacl_trainers.loss.TrainingLoss"},
        {"arguments.dropout_op": "torch.nn.Dropout3d", "arguments.norm_op": "torch.nn.modules.batchnorm.BatchNorm3d"},
        {"arguments.nonlin": f"{NETWORKS.replace('architectures.', '')}.building_blocks.nowhere"},
        {"configuration.normalization_schemes": SCHEMES},
        *({"plans.image_reader_writer": name, "dataset.overwrite_image_reader_writer": name} for name in READERS),
        *({"configuration.resampling_fn_data": name, "configuration.resampling_fn_seg": name} for name in RESAMPLING),
        {"dataset.overwrite_image_reader_writer": "None"},
        *({"checkpoint.trainer_name": f"nnUNetTrainer{name}"} for name in ("BN", "DiceCELoss_noSmooth", "NACL_k5")),
    ],
    ids=lambda changes: ", ".join(map(str, changes.values()))[:80],
)
def test_what_nnunet_and_this_package_ship_passes(changes):
    check(changes)


@pytest.mark.parametrize("name", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_old_plans_pass(name):
    old = plans_json()["configurations"]["3d_fullres"]
    arguments = old.pop("architecture")["arch_kwargs"]
    old |= {"UNet_class_name": name, "UNet_base_num_features": 4, "unet_max_num_features": 8}
    old |= {"num_pool_per_axis": [1, 1, 1], "pool_op_kernel_sizes": arguments["strides"]}
    old |= {"conv_kernel_sizes": arguments["kernel_sizes"], "n_conv_per_stage_encoder": [1, 1]}
    with pytest.warns(UserWarning, match="old nnU-Net plans"):
        check({"plans.configurations": {"3d_fullres": old | {"n_conv_per_stage_decoder": [1]}}})


def test_networks_of_packages_that_register_trainers_pass(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_trainers.py").write_text("import torch\nclass Network(torch.nn.Module):\n    pass\n")
    with pytest.raises(UserError, match="their_trainers"):
        check({"network.network_class_name": "their_trainers.Network"})
    (tmp_path / "theirs-1.dist-info").mkdir()
    (tmp_path / "theirs-1.dist-info" / "METADATA").write_text("Name: theirs\nVersion: 1\n")
    points = "[nnunetv2.trainers]\nnnUNetTrainerTheirs = their_trainers:Trainer\n"
    (tmp_path / "theirs-1.dist-info" / "entry_points.txt").write_text(points)
    check({"network.network_class_name": "their_trainers.Network"})


def test_a_folder_of_predictions_is_opened_only_if_its_names_pass():
    plans = json.loads(json.dumps(plans_json()))
    with pytest.raises(UserError, match="plans.json of FOLDER: label_manager is 'softmax_helper_dim0'"):
        label_manager_of(plans | {"label_manager": "softmax_helper_dim0"}, CHANNELS, "FOLDER")
    with pytest.raises(UserError, match="plans.json of FOLDER: image_reader_writer is 'sitk'"):
        find_reader(plans | {"image_reader_writer": "sitk"}, CHANNELS, "FOLDER")
    with pytest.raises(UserError, match="dataset.json of FOLDER: overwrite_image_reader_writer is 'sitk'"):
        find_reader(plans, CHANNELS | {"overwrite_image_reader_writer": "sitk"}, "FOLDER")
