"""The user's own class of docs/losses.md in nnU-Net's commands: trains, goes on, predicts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace, epochs_in, training_log
from tests.trainers.test_own_trainers import OWN, example_of

pytestmark = pytest.mark.slow
SCHEDULE = "    iterations_per_epoch = 2\n    epochs = {epochs}\n"


def test_the_documented_class_trains_goes_on_and_predicts(
    workspace: Workspace, tmp_path: Path
) -> None:
    users_file = tmp_path / "trainers_of_the_user.py"
    variables = {"nnUNet_extTrainer": str(tmp_path), "nnUNet_n_proc_DA": "0"}
    train = f"nnUNetv2_train {tiny.TASK_ID} 2d 0 -tr {OWN} -device cpu"
    example = example_of(OWN).replace("    epochs = 250\n", SCHEDULE)
    assert "penalty_weight" in example
    assert "{epochs}" in example

    users_file.write_text(example.replace("{epochs}", "2"))
    workspace.run_warm(train, **variables)
    fold = workspace.model_folder(tiny.TASK_ID, OWN, "nnUNetPlans", "2d") / "fold_0"
    assert epochs_in(training_log(fold)) == [0, 1]
    assert "penalty_weight=0.3, kernel_size=(5, 5)" in tiny.read_json(fold / "debug.json")["loss"]
    assert (fold / "validation" / "calibration.json").is_file()

    users_file.write_text(example.replace("{epochs}", "3"))
    workspace.run_warm(f"{train} --c", **variables)
    assert epochs_in(training_log(fold)) == [2]
    checkpoint = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert checkpoint["trainer_name"] == OWN
    assert checkpoint["current_epoch"] == 3

    scans = workspace.images(tiny.TASK_ID)
    output = tmp_path / "out"
    model = f"-d {tiny.TASK_ID} -c 2d -f 0 -tr {OWN} -device cpu -npp 0 -nps 0 --disable_tta"
    workspace.run_warm(f"nnUNetv2_predict -i {scans} -o {output} {model}", **variables)
    assert len(list(output.glob("*.nii.gz"))) == 1
