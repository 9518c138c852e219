"""nnU-Net's training and prediction on a GPU, with and without torch.compile, and `nnunet_nacl
predict` beside it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace, epochs_in, training_log
from tests.runs.folders import read

pytestmark = pytest.mark.gpu
TRAINER, COMPILED = "nnUNetTrainerNACL_2epochs_3iters", "nnUNetTrainerNACL_3epochs_3iters"


@pytest.fixture(scope="module", params=[TRAINER, COMPILED], ids=["eager", "compiled"])
def model(request, device: torch.device, workspace: Workspace) -> str:
    """The name of a trainer that was trained, without and with torch.compile (which nnU-Net leaves
    out on the CPU)."""
    compiled = "true" if request.param == COMPILED else "false"
    command = (
        "nnUNetv2_train",
        tiny.TASK_ID,
        "2d",
        0,
        "-tr",
        request.param,
        "-device",
        device.type,
    )
    workspace.run(*command, nnUNet_compile=compiled, nnUNet_n_proc_DA="0")
    return request.param


def test_all_epochs_are_trained(model: str, workspace: Workspace) -> None:
    fold = workspace.model_folder(tiny.TASK_ID, model, "nnUNetPlans", "2d") / "fold_0"
    log = training_log(fold)
    assert epochs_in(log) == list(range(int(model.split("_")[1].removesuffix("epochs"))))
    values = [float(value) for value in re.findall(r"(?:train|val)_loss (\S+)", log)]
    assert len(values) == 2 * len(epochs_in(log)) and np.isfinite(values).all()
    assert (fold / "checkpoint_final.pth").is_file() and (
        fold / "validation" / "calibration.json"
    ).is_file()


def test_predict_gives_what_nnunet_gives(
    model: str, workspace: Workspace, device: torch.device
) -> None:
    images = workspace.dataset_folder(workspace.raw, tiny.TASK_ID) / "imagesTs"
    outputs = []
    for command in (["nnUNetv2_predict"], ["nnunet_nacl", "predict"]):
        outputs.append(workspace.folder / f"gpu_{command[-1]}_{model}")
        options = (
            "-d",
            tiny.TASK_ID,
            "-c",
            "2d",
            "-tr",
            model,
            "-f",
            0,
            "-device",
            device.type,
            "-npp",
            1,
            "-nps",
            1,
        )
        workspace.run(*command, "-i", images, "-o", outputs[-1], *options, "--save_probabilities")
    cases = sorted(path.name.removesuffix(".npz") for path in outputs[0].glob("*.npz"))
    assert cases
    for case in cases:
        stock, ours = (np.load(folder / f"{case}.npz")["probabilities"] for folder in outputs)
        assert np.abs(stock.astype(np.float64) - ours).max() <= 1e-3
        # kernels may differ in the last digits
        sure = np.sort(stock, axis=0)[-1] - np.sort(stock, axis=0)[-2] > 2e-3
        stock_labels, our_labels = (read(folder / f"{case}.nii.gz") for folder in outputs)
        assert np.array_equal(stock_labels[sure], our_labels[sure])
