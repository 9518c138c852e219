"""Files that others made: checkpoints are read as numbers, and what they name must be of the kind
that is meant."""

from __future__ import annotations

import contextvars
import copy
import os
import sys
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_nacl import Predictor
from nnunet_nacl.cli.main import main
from nnunet_nacl.nnunet.trust import (
    TRUSTED,
    check_names,
    configuration_of,
    find_reader,
    label_manager_of,
    read_checkpoint,
)
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_files import read_dict
from tests.metrics.models import architecture, give_map, make_trained
from tests.nnunet.untrained import plans_json
from tests.processes import run_warm
from tests.runs.crafted_numbers import CRAFTED
from tests.runs.folders import write_image, write_json

CONTENT = {
    "network_weights": {"layer.weight": torch.ones(300, 300)},
    "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
    "grad_scaler_state": None,
    "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.25)], "epoch": [np.int64(3), 4.0]},
    "_best_ema": np.float64(0.5),
    "trainer_name": "nnUNetTrainer",
    "init_args": {"configuration": "2d", "fold": 0, "device": torch.device("cpu")},
    "inference_allowed_mirroring_axes": (0, 1),
}


class Harmful:
    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_what_nnunet_writes_is_read_and_every_number_keeps_its_type_and_bytes(tmp_path):
    kinds = ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
    values = [
        np.dtype(kind).type(np.frombuffer(b"\x01\x3c\x03\x40\x05\x06\x07\x40", kind)[0])
        for kind in kinds
    ]
    torch.save(CONTENT | {"values": values}, tmp_path / "checkpoint.pth")
    found = read_checkpoint(tmp_path / "checkpoint.pth")
    assert found["logging"] == CONTENT["logging"] and found["init_args"] == CONTENT["init_args"]
    assert torch.equal(
        found["network_weights"]["layer.weight"], CONTENT["network_weights"]["layer.weight"]
    )
    for number, read in zip(values, found["values"], strict=True):
        assert type(read) is type(number) and read.tobytes() == number.tobytes()


def read_each(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        try:
            print(f"{path.stem}: {read_checkpoint(path)['_best_ema']}")
        except UserError as error:
            print(f"{path.stem}: refused, {error}")


def test_numbers_that_numpy_would_not_write_are_refused_and_no_memory_is_read(tmp_path):
    (tmp_path / "files").mkdir()
    for name, number in CRAFTED.items():
        torch.save(CONTENT | {"_best_ema": number}, tmp_path / "files" / f"{name}.pth")
    ended = run_warm(read_each, tmp_path / "files", folder=tmp_path)
    assert ended.returncode == 0
    for name, line in zip(sorted(CRAFTED), ended.stdout.splitlines(), strict=True):
        assert line.startswith(
            f"{name}: refused, {tmp_path / 'files' / name}.pth: cannot be read as "
        )


def test_the_form_of_older_versions_of_pytorch_and_numpy_is_read(tmp_path):
    content = {
        key: value for key, value in CONTENT.items() if key != "inference_allowed_mirroring_axes"
    }
    torch.save(content, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    legacy = (
        (tmp_path / "legacy.pth")
        .read_bytes()
        .replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    )
    (tmp_path / "legacy.pth").write_bytes(legacy)
    found = read_checkpoint(tmp_path / "legacy.pth")
    assert found["logging"] == CONTENT["logging"]
    assert torch.equal(
        found["network_weights"]["layer.weight"], CONTENT["network_weights"]["layer.weight"]
    )


def test_what_could_run_code_is_refused_unless_it_is_trusted(tmp_path):
    path = tmp_path / "checkpoint.pth"
    made = tmp_path / "made"
    torch.save(CONTENT | {"extra": Harmful(made)}, path)
    with pytest.raises(UserError, match="checkpoint.pth: .*it can run code.*trust_checkpoint=True"):
        read_checkpoint(path)
    assert not made.exists()
    token = TRUSTED.set(True)
    try:
        assert read_checkpoint(path)["trainer_name"] == "nnUNetTrainer" and made.is_dir()
    finally:
        TRUSTED.reset(token)


@pytest.mark.parametrize("content", [b"", b"x", b"PK\x03\x04nothing", b"\x80\x02}q\x00."])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "checkpoint.pth").write_bytes(content)
    with pytest.raises(UserError, match="checkpoint.pth: (cannot be read as|not) a checkpoint"):
        read_checkpoint(tmp_path / "checkpoint.pth")
    with pytest.raises(UserError, match="none.pth: No such file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match=f"{tmp_path}: Is a directory; correct the path."):
        read_checkpoint(tmp_path)


CHANNELS = {
    "channel_names": {"0": "CT", "1": "PET"},
    "file_ending": ".nii.gz",
    "labels": {"background": 0, "a": 1},
}
NETWORKS = "dynamic_network_architectures.architectures"
PRIMUS = {
    "embed_dim": 24,
    "patch_embed_size": [4, 4, 4],
    "input_shape": [8, 8, 8],
    "eva_depth": 1,
    "eva_numheads": 2,
}


def check(changes: dict[str, Any], configuration: str = "3d_fullres") -> None:
    """Judge a model whose files have other values at places such as
    ``configuration.preprocessor_name``."""
    plans = plans_json()
    dataset = copy.deepcopy(CHANNELS)
    checkpoint = {"trainer_name": "nnUNetTrainer"}
    checkpoint["init_args"] = {"configuration": configuration}
    settings = plans["configurations"]["3d_fullres"]
    files = {
        "plans": plans,
        "configuration": settings,
        "dataset": dataset,
        "checkpoint": checkpoint,
    }
    files |= {
        "network": settings["architecture"],
        "arguments": settings["architecture"]["arch_kwargs"],
    }
    for place, value in changes.items():
        file, _, key = place.partition(".")
        files[file][key] = value
    for name, content in {
        "checkpoint": checkpoint,
        "plans.json": plans,
        "dataset.json": dataset,
    }.items():
        check_names(content, f"{name} of FOLDER")
    configuration_of(PlansManager(plans), configuration, "FOLDER")


@pytest.mark.parametrize(
    "place, name",
    [
        ("network.network_class_name", "unittest.mock.Mock"),
        ("network.network_class_name", "harmful.Network"),
        ("network.network_class_name", f"{NETWORKS}.unet.nn.modules.module.torch.os.system"),
        ("network.network_class_name", f"{NETWORKS}.unet.nn.Parameter"),  # a class, and no network
        # where nnU-Net searches next
        ("network.network_class_name", f"{NETWORKS}.moved.rearrange"),
        ("arguments.nonlin", "torch.nn.modules.module.torch.os.system"),
        # a module that compiles text
        ("arguments.nonlin", "torch.nn.modules.module.torch.fx.GraphModule"),
        ("arguments.nonlin", "harmful.layer"),
        ("configuration.preprocessor_name", "multiprocessing"),
        ("configuration.normalization_schemes", ["ZScoreNormalization", "number"]),
        ("configuration.resampling_fn_data", "deepcopy"),
        ("configuration.resampling_fn_seg", "recursive_find_python_class"),
        ("configuration.resampling_fn_probabilities", "SimpleITKIO"),
        ("configuration.data_identifier", "../../nnUNet_results/Dataset999_Synthetic/model"),
        ("plans.dataset_name", ".."),
        ("plans.label_manager", "softmax_helper_dim0"),
        ("plans.image_reader_writer", "sitk"),
        ("dataset.overwrite_image_reader_writer", "Tuple"),
        ("checkpoint.trainer_name", "PlansManager"),
    ],
)
def test_what_is_something_else_is_refused_and_not_even_imported(
    place, name, monkeypatch, tmp_path
):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "harmful", raising=False)
    (tmp_path / "harmful.py").write_text(
        "import torch\nclass Network(torch.nn.Module):\n    pass\nlayer = Network\n"
    )
    with pytest.raises(UserError) as caught:
        check({place: name}, "3d_cascade_fullres")  # which inherits from the other
    message = str(caught.value)
    key = place.partition(".")[2]
    refused = name[-1] if isinstance(name, list) else name
    assert f"FOLDER: {key} is {refused!r}, which does not belong there: " in message
    assert (
        "it can run code. If you know who made it, pass trust_checkpoint=True; else do not use it."
        in message
    )
    assert "\n" not in message and "harmful" not in sys.modules


def test_a_preprocessor_that_there_is_not_and_a_layer_that_is_imported_unasked():
    with pytest.raises(
        UserError, match="FOLDER: nnU-Net has no preprocessor_name 'TheirPreprocessor'; plan again"
    ):
        check({"configuration.preprocessor_name": "TheirPreprocessor"})
    # nnUNetTrainerBN would import it
    with pytest.raises(UserError, match="conv_op is 'harmful.layer', which "):
        check({"network._kw_requires_import": [], "arguments.conv_op": "harmful.layer"})


def of_package(module: str, base: str | None) -> list[str]:
    """The classes or functions that a module of nnU-Net defines or, for classes, has from others of
    the package."""
    found = vars(import_module(f"nnunetv2.{module}"))
    if base is None:
        return [
            name
            for name, value in found.items()
            if isinstance(value, FunctionType) and name.startswith("resam")
        ]
    return [
        name
        for name, value in found.items()
        if isinstance(value, type) and issubclass(value, found[base])
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"network." + key: value for key, value in architecture("residual").items()},
        {"network.network_class_name": f"{NETWORKS}.primus.Primus", "network.arch_kwargs": PRIMUS},
        # which has moved since
        {"network.network_class_name": f"{NETWORKS}.residual_unet.ResidualEncoderUNet"},
        {"network.network_class_name": "nnunet_nacl_trainers.base.TrainingLoss"},
        {
            "arguments.dropout_op": "torch.nn.Dropout3d",
            "arguments.norm_op": "torch.nn.modules.batchnorm.BatchNorm3d",
        },
        {"arguments.nonlin": f"{NETWORKS.replace('architectures.', '')}.building_blocks.nowhere"},
    ],
    ids=lambda changes: ", ".join(map(str, changes.values()))[:80],
)
def test_networks_that_nnunet_and_this_package_ship_pass(changes):
    check(changes)


def test_all_else_that_they_ship_passes():
    schemes = of_package(
        "preprocessing.normalization.default_normalization_schemes", "ImageNormalization"
    )
    check({"configuration.normalization_schemes": schemes})
    for name in (*of_package("imageio.reader_writer_registry", "BaseReaderWriter"), "None"):
        check({"plans.image_reader_writer": name, "dataset.overwrite_image_reader_writer": name})
    for module in ("default_resampling", "resample_torch"):
        for name in of_package(f"preprocessing.resampling.{module}", None):
            check(
                {"configuration.resampling_fn_data": name, "configuration.resampling_fn_seg": name}
            )
    for name in ("BN", "DiceCELoss_noSmooth", "NACL_k5"):
        check({"checkpoint.trainer_name": f"nnUNetTrainer{name}"})


def test_old_plans_pass():
    old = plans_json()["configurations"]["3d_fullres"]
    arguments = old.pop("architecture")["arch_kwargs"]
    old |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
    }
    old |= {"num_pool_per_axis": [1, 1, 1], "pool_op_kernel_sizes": arguments["strides"]}
    old |= {"conv_kernel_sizes": arguments["kernel_sizes"], "n_conv_per_stage_encoder": [1, 1]}
    with pytest.warns(UserWarning, match="old nnU-Net plans"):
        check({"plans.configurations": {"3d_fullres": old | {"n_conv_per_stage_decoder": [1]}}})


def test_networks_of_packages_that_register_trainers_pass(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_trainers.py").write_text(
        "import torch\nclass Network(torch.nn.Module):\n    pass\n"
    )
    with pytest.raises(UserError, match="their_trainers"):
        check({"network.network_class_name": "their_trainers.Network"})
    (tmp_path / "theirs-1.dist-info").mkdir()
    (tmp_path / "theirs-1.dist-info" / "METADATA").write_text("Name: theirs\nVersion: 1\n")
    points = "[nnunetv2.trainers]\nnnUNetTrainerTheirs = their_trainers:Trainer\n"
    (tmp_path / "theirs-1.dist-info" / "entry_points.txt").write_text(points)
    check({"network.network_class_name": "their_trainers.Network"})


def test_a_folder_of_predictions_is_opened_only_if_its_names_pass():
    plans = plans_json()
    with pytest.raises(
        UserError, match="plans.json of FOLDER: label_manager is 'softmax_helper_dim0'"
    ):
        label_manager_of(plans | {"label_manager": "softmax_helper_dim0"}, CHANNELS, "FOLDER")
    with pytest.raises(UserError, match="plans.json of FOLDER: image_reader_writer is 'sitk'"):
        find_reader(plans | {"image_reader_writer": "sitk"}, CHANNELS, "FOLDER")
    with pytest.raises(
        UserError, match="dataset.json of FOLDER: overwrite_image_reader_writer is 'sitk'"
    ):
        find_reader(plans, CHANNELS | {"overwrite_image_reader_writer": "sitk"}, "FOLDER")


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """A model with scans and labels beside it; loading its weights makes the folder RAN."""
    (tmp_path / "harmful.py").write_text(
        f"import os\ndef run(weights):\n    os.mkdir({str(tmp_path / 'RAN')!r})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "harmful", raising=False)
    model = make_trained(tmp_path / "nnunet", folds=2, cases=1)
    plans = read_dict(model.folder / "plans.json")
    mock = {
        "network_class_name": "unittest.mock.Mock",
        "arch_kwargs": {"load_state_dict.side_effect": "harmful.run"},
    }
    mock["_kw_requires_import"] = ["load_state_dict.side_effect"]
    plans["configurations"]["3d_fullres"]["architecture"] = mock
    write_json(model.folder / "plans.json", plans)
    give_map(model)
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    # nnU-Net reads it when it is imported, which may have been before
    results = model.environment["nnUNet_results"]
    monkeypatch.setattr("nnunetv2.utilities.file_path_utilities.nnUNet_results", results)
    for name, ending in (("scans", "_0000"), ("labels", "")):
        (tmp_path / name).mkdir()
        image = np.random.default_rng(0).integers(0, 3, (6, 14, 12)).astype(np.uint8)
        write_image(image, tmp_path / name / f"case{ending}.nii.gz", (2.0, 1.0, 0.5))
    return model


MODEL = ("-d", "Dataset999_Synthetic", "-c", "3d_fullres")


@pytest.mark.parametrize(
    "command",
    [
        (
            "predict",
            "-i",
            "scans",
            "-o",
            "out",
            "-m",
            "{model}",
            "-device",
            "cpu",
            "-npp",
            "0",
            "-nps",
            "0",
        ),
        (
            "calibrate",
            "-i",
            "scans",
            "-gt",
            "labels",
            "-m",
            "{model}",
            "-o",
            "map.json",
            "-device",
            "cpu",
            "-np",
            "1",
        ),
        ("evaluate", *MODEL, "--predict", "-device", "cpu", "-np", "1"),
        (),
    ],
    ids=["predict", "calibrate images", "evaluate", "Python"],
)
def test_a_model_that_was_not_looked_at_runs_nothing(
    foreign, command, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    if command:
        main([word.format(model=foreign.folder) for word in command])
        error = capfd.readouterr().err.splitlines()[-1]
    else:
        with pytest.raises(UserError) as caught:
            Predictor(foreign.folder, device="cpu")
        error = str(caught.value)
    assert not (tmp_path / "RAN").exists()
    assert (
        f"plans.json of {foreign.folder}: network_class_name is 'unittest.mock.Mock', which"
        " does not" in error
    )
    remedy = "--trust_checkpoint" if command else "trust_checkpoint=True"
    assert f"it can run code. If you know who made it, pass {remedy}; else do not use it." in error


def test_a_model_that_is_trusted_is_nnunets_matter(foreign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = [
        "predict",
        "-i",
        "scans",
        "-o",
        "out",
        "-m",
        str(foreign.folder),
        "-device",
        "cpu",
        "-npp",
        "0",
    ]
    contextvars.copy_context().run(main, [*command, "-nps", "0", "--trust_checkpoint"])
    assert (tmp_path / "RAN").is_dir()


def test_auto_takes_the_first_device_that_there_is_and_others_are_refused(monkeypatch):
    from nnunet_nacl.nnunet.predicted import find_device

    here = {"cuda": True, "mps": True}
    monkeypatch.setattr("torch.cuda.is_available", lambda: here["cuda"])
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: here["mps"])
    assert [find_device("auto"), find_device("cpu")] == ["cuda", "cpu"]
    here["cuda"] = False
    assert find_device("auto") == "mps"
    here["mps"] = False
    assert find_device("auto") == "cpu"
    for name in ("cuda", "gpu"):
        with pytest.raises(UserError, match=f"the device '{name}': PyTorch finds cpu here"):
            find_device(name)


def test_the_search_for_a_trainer_prints_nothing(capfd) -> None:
    """nnU-Net prints that it finds no such trainer of its own, before it finds ours."""
    check_names({"trainer_name": "nnUNetTrainerNACL"}, "checkpoint of FOLDER")
    assert capfd.readouterr() == ("", "")
