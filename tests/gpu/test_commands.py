"""nnU-Net's training and prediction on a GPU, and `nnunet_nacl predict` beside it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace, epochs_in, training_log
from tests.runs.folders import read

pytestmark = pytest.mark.gpu
TRAINER = "nnUNetTrainerNACL_2epochs_3iters"
COMPILED = "nnUNetTrainerNACL_3epochs_3iters"
NUM_EPOCHS = {TRAINER: 2, COMPILED: 3}


@pytest.fixture(scope="module", params=[TRAINER, COMPILED], ids=["eager", "compiled"])
def model(request, device: torch.device, workspace: Workspace) -> str:
    """Train, without and with torch.compile, which nnU-Net leaves out on the CPU; the trainer."""
    trainer = request.param
    compiled = "true" if trainer == COMPILED else "false"
    command = f"nnUNetv2_train {tiny.TASK_ID} 2d 0 -tr {trainer} -device {device.type}"
    workspace.run(command, nnUNet_compile=compiled, nnUNet_n_proc_DA="0")
    return trainer


def test_all_epochs_are_trained(model: str, workspace: Workspace) -> None:
    fold = workspace.model_folder(tiny.TASK_ID, model, "nnUNetPlans", "2d") / "fold_0"
    log = training_log(fold)
    losses = [float(value) for value in re.findall(r"(?:train|val)_loss (\S+)", log)]
    assert epochs_in(log) == list(range(NUM_EPOCHS[model]))
    assert len(losses) == 2 * NUM_EPOCHS[model]
    assert np.isfinite(losses).all()
    assert (fold / "checkpoint_final.pth").is_file()
    assert (fold / "validation" / "calibration.json").is_file()


def test_predict_gives_what_nnunet_gives(
    model: str, workspace: Workspace, device: torch.device
) -> None:
    images = workspace.images(tiny.TASK_ID)
    of_nnunet = workspace.folder / f"gpu_nnunet_{model}"
    of_ours = workspace.folder / f"gpu_predict_{model}"
    options = f"-i {images} -d {tiny.TASK_ID} -c 2d -tr {model} -f 0 -device {device.type}"
    options += " -npp 1 -nps 1 --save_probabilities"
    workspace.run(f"nnUNetv2_predict {options}", "-o", of_nnunet)
    workspace.run(f"nnunet_nacl predict {options}", "-o", of_ours)

    cases = sorted(path.name.removesuffix(".npz") for path in of_nnunet.glob("*.npz"))
    assert cases
    for case in cases:
        expected = np.load(of_nnunet / f"{case}.npz")["probabilities"].astype(np.float64)
        probs = np.load(of_ours / f"{case}.npz")["probabilities"]
        assert np.abs(expected - probs).max() <= 1e-3
        # kernels may differ in the last digits
        *_, second, first = np.sort(expected, axis=0)
        is_sure = first - second > 2e-3
        expected_labels = read(of_nnunet / f"{case}.nii.gz")
        labels = read(of_ours / f"{case}.nii.gz")
        assert np.array_equal(expected_labels[is_sure], labels[is_sure])
