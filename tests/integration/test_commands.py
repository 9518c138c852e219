"""nnU-Net's other commands with trainers of ours: they find them by name in every process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.integration import tiny_data as tiny
from tests.integration.chains import NACL_2D, images, predictions
from tests.integration.test_trainings import assert_calibration_recorded, labels_of
from tests.integration.workspace import Workspace, epochs_in, kill, training_log, wait_for

RESUMED = "nnUNetTrainerNACL_lambda0p2_6epochs_2iters_adam"


def model_2d(space: Workspace):
    return space.model_folder(NACL_2D.dataset_id, NACL_2D.trainer, NACL_2D.plans_name, "2d")


def test_predicting_from_a_model_folder(trained, tmp_path) -> None:
    space, out = trained(NACL_2D), tmp_path / "out"
    space.run(
        f"nnUNetv2_predict_from_modelfolder -i {images(space, NACL_2D)} -o {out} -m {model_2d(space)} -f 0 "
        "-device cpu -npp 1 -nps 1 --disable_tta --save_probabilities"
    )
    (predicted,) = out.glob("*.nii.gz")
    expected = predictions(space, NACL_2D, "2d") / predicted.name
    np.testing.assert_array_equal(labels_of(predicted), labels_of(expected))
    assert len(list(out.glob("*.npz"))) == 1


@pytest.fixture(scope="module")
def resumed(workspace: Workspace) -> Path:
    """The fold of a training that was killed in its third epoch and then continued."""
    command = ("nnUNetv2_train", NACL_2D.dataset_id, "2d", "0", "-tr", RESUMED, "-device", "cpu", "--npz")
    name = workspace.dataset_folder(workspace.raw, NACL_2D.dataset_id).name
    fold = workspace.results / name / f"{RESUMED}__nnUNetPlans__2d" / "fold_0"
    process = workspace.start(*command)
    try:
        wait_for(lambda: max(epochs_in(training_log(fold)), default=0) >= 2, process)
    finally:
        kill(process)
    assert (fold / "checkpoint_latest.pth").is_file() and not (fold / "checkpoint_final.pth").exists()
    workspace.run(*command, "--c")
    return fold


def test_a_killed_training_goes_on_under_its_parameterised_name(resumed: Path) -> None:
    epochs = epochs_in(training_log(resumed))
    assert epochs[0] in (1, 2, 3) and epochs == list(range(epochs[0], 6))
    checkpoint = torch.load(resumed / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert checkpoint["trainer_name"] == RESUMED and checkpoint["current_epoch"] == 6
    (group,) = checkpoint["optimizer_state"]["param_groups"]
    assert group["lr"] == pytest.approx(1e-4) and len(checkpoint["logging"]["lrs"]) == 6
    assert "penalty_weight=0.2" in tiny.read_json(resumed / "debug.json")["loss"]
    assert_calibration_recorded(resumed, 6)
    assert len(list((resumed / "validation").glob("*.npz"))) == 1


def test_the_best_of_two_trainers_and_their_ensemble(trained, resumed: Path) -> None:
    space = trained(NACL_2D)
    trainers = f"{NACL_2D.trainer} {RESUMED}"
    space.run(f"nnUNetv2_find_best_configuration {NACL_2D.dataset_id} -tr {trainers} -c 2d -f 0 -np 1")
    results = space.dataset_folder(space.results, NACL_2D.dataset_id)
    scores = tiny.read_json(results / "inference_information.json")["all_results"]
    assert len(scores) == 3 and np.isfinite(list(scores.values())).all()
    assert any(NACL_2D.trainer in name and RESUMED in name for name in scores), "no ensemble of the two"
    instructions = (results / "inference_instructions.txt").read_text()
    assert f"-tr {NACL_2D.trainer} " in instructions or f"-tr {RESUMED} " in instructions
