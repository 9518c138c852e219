"""The networks that names ask for, trained and used by nnU-Net's commands."""

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
    folder = workspace.dataset_folder(workspace.preprocessed, tiny.TASK_ID)
    plans_file = folder / f"{tiny.PLANS['default']}.json"
    plans = tiny.read_json(plans_file)
    plans["configurations"][CONFIGURATION] = {"inherits_from": "2d", "patch_size": [32, 32]}
    tiny.write_json(plans_file, plans)
    return workspace


def train(space: Workspace, dataset_id: int, configuration: str, trainer: str) -> Path:
    """Train and validate a fold; the folder of its validation."""
    command = f"nnUNetv2_train {dataset_id} {configuration} 0 -tr {trainer} -device cpu"
    space.run_warm(command, nnUNet_n_proc_DA="0")
    model = space.model_folder(dataset_id, trainer, tiny.PLANS["default"], configuration)
    return model / "fold_0" / "validation"


@pytest.mark.parametrize("network", ["attunet", "unetpp", "transunet"])
def test_a_network_trains_validates_and_predicts(space: Workspace, network, tmp_path) -> None:
    trainer = f"nnUNetTrainerNACL_{network}{SCHEDULE}"
    validation = train(space, tiny.TASK_ID, CONFIGURATION, trainer)
    assert (validation / "calibration.json").is_file()

    images = space.images(tiny.TASK_ID)
    model = f"-d {tiny.TASK_ID} -c {CONFIGURATION} -tr {trainer} -f 0"
    predict = f"nnUNetv2_predict {model} -device cpu -npp 0 -nps 0 --disable_tta"
    space.run_warm(predict, "-i", images, "-o", tmp_path / "out")
    (image,) = images.iterdir()
    (prediction,) = (tmp_path / "out").glob("*.nii.gz")
    assert sitk.ReadImage(str(prediction)).GetSize() == sitk.ReadImage(str(image)).GetSize()


def test_a_network_trains_in_3d_on_regions_with_ignored_voxels(space: Workspace) -> None:
    trainer = f"nnUNetTrainerNACL_attunet{SCHEDULE}"
    validation = train(space, tiny.DATASET_IDS["regions_ignore"], "3d_fullres", trainer)
    assert (validation / "summary.json").is_file()
