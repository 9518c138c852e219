"""The networks that names ask for, through nnU-Net's commands and the calibration of what they
make."""

from __future__ import annotations

from pathlib import Path

import pytest
import SimpleITK as sitk

from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace

CONFIGURATION = "2d_larger"  # U-Net++ cannot take patches of 16
SCHEDULE = "_plainstart_1epochs_2iters_adam_noda"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def space(workspace: Workspace) -> Workspace:
    """With a configuration of larger patches, all else as in 2d."""
    plans_file = (
        workspace.dataset_folder(workspace.preprocessed, tiny.TASK_ID)
        / f"{tiny.PLANS['default']}.json"
    )
    plans = tiny.read_json(plans_file)
    plans["configurations"][CONFIGURATION] = {"inherits_from": "2d", "patch_size": [32, 32]}
    tiny.write_json(plans_file, plans)
    return workspace


def train(space: Workspace, network: str, *flags: str) -> tuple[list[str], Path]:
    """Train and validate a network in 2D; how other commands name the model, and the fold's
    folder."""
    trainer = f"nnUNetTrainerNACL_{network}{SCHEDULE}"
    command = [
        "nnUNetv2_train",
        tiny.TASK_ID,
        CONFIGURATION,
        0,
        "-tr",
        trainer,
        "-device",
        "cpu",
        *flags,
    ]
    space.run_warm(*command, nnUNet_n_proc_DA="0")
    fold = (
        space.model_folder(tiny.TASK_ID, trainer, tiny.PLANS["default"], CONFIGURATION) / "fold_0"
    )
    return ["-d", tiny.TASK_ID, "-c", CONFIGURATION, "-tr", trainer], fold


def predict(space: Workspace, which: list, out: Path, *flags: str) -> None:
    """Predict an image by nnU-Net's own command."""
    run = [
        "-i",
        space.images(tiny.TASK_ID),
        "-f",
        0,
        "-device",
        "cpu",
        "-npp",
        0,
        "-nps",
        0,
        "--disable_tta",
        *flags,
    ]
    space.run_warm("nnUNetv2_predict", *which, *run, "-o", out)
    (predicted,), (image,) = out.glob("*.nii.gz"), space.images(tiny.TASK_ID).iterdir()
    assert sitk.ReadImage(str(predicted)).GetSize() == sitk.ReadImage(str(image)).GetSize()


@pytest.mark.parametrize("network", ["attunet", "unetpp", "transunet"])
def test_a_network_trains_validates_and_predicts(space: Workspace, network, tmp_path) -> None:
    which, fold = train(space, network)
    assert (fold / "validation" / "calibration.json").is_file()
    predict(space, which, tmp_path / "out")


def test_a_network_trains_in_3d_on_regions_with_ignored_voxels(space: Workspace) -> None:
    trainer, number = f"nnUNetTrainerNACL_attunet{SCHEDULE}", tiny.DATASET_IDS["regions_ignore"]
    space.run_warm(
        "nnUNetv2_train",
        number,
        "3d_fullres",
        0,
        "-tr",
        trainer,
        "-device",
        "cpu",
        nnUNet_n_proc_DA="0",
    )
    model = space.model_folder(number, trainer, tiny.PLANS["default"], "3d_fullres")
    assert (model / "fold_0" / "validation" / "summary.json").is_file()
