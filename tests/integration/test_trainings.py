"""Trainers of ours in nnU-Net's own commands, which find them by name in every process."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_nacl_trainers.calibration_log import ECE_KEY, NLL_KEY
from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace, epochs_in, kill, training_log, wait_for
from tests.runs.folders import read

pytestmark = pytest.mark.slow
SCHEDULE = "_1epochs_2iters"
RESUMED = "nnUNetTrainerNACL_lambda0p2_6epochs_2iters_adam"


@dataclass(frozen=True)
class Chain:
    """A trainer on a data set, in one configuration after the other.

    Attributes:
        plans: A key of ``tiny.PLANS``.
        method: In the trainer's name, perhaps with tokens.
        loss: What debug.json must say of the loss.
        npz: Whether the last validation keeps probabilities.
    """

    label_space: str
    configurations: tuple[str, ...]
    plans: str
    method: str
    loss: str
    npz: bool = False

    @property
    def dataset_id(self) -> int:
        return tiny.DATASET_IDS[self.label_space]

    @property
    def trainer(self) -> str:
        if self.method.endswith("_adam"):  # a token that stands after those of the schedule
            return f"nnUNetTrainer{self.method.removesuffix('_adam')}{SCHEDULE}_adam"
        return f"nnUNetTrainer{self.method}{SCHEDULE}"

    def __str__(self) -> str:
        return f"{self.label_space}-{self.configurations[-1]}-{self.plans}-{self.method}"


SLICES = ("2d",)
VOLUMES = ("3d_fullres",)
# needs the network of the low resolution, on all cases
CASCADE = ("3d_lowres", "3d_cascade_fullres")
CUBE = "kernel_size=(3, 3, 3)"
IN_PLANE = "kernel_size=(1, 3, 3)"
NACL_2D = Chain("classes", SLICES, "default", "NACL", "kernel_size=(3, 3)", npz=True)
CHAINS = (  # every method, and every pair of label space, configuration and plans
    NACL_2D,
    Chain("classes", VOLUMES, "resenc", "DiceNACL_anneal", CUBE, npz=True),
    Chain("classes", CASCADE, "anisotropic", "SVLS", IN_PLANE),
    Chain("ignore", SLICES, "resenc", "MbLS", "margin=5.0"),
    Chain("ignore", VOLUMES, "anisotropic", "NACL_gaussian_l2", IN_PLANE, npz=True),
    Chain("ignore", CASCADE, "default", "DiceFocal", "gamma=3.0"),
    Chain("regions", SLICES, "anisotropic", "LS", "smoothing=0.1"),
    Chain("regions", VOLUMES, "default", "ECP_sum", "class_reduction='sum'", npz=True),
    Chain("regions", CASCADE, "resenc", "NACL_adam", CUBE),
    Chain("regions_ignore", SLICES, "default", "CE", "CELoss"),
    Chain("regions_ignore", VOLUMES, "resenc", "DiceSVLS", CUBE, npz=True),
    Chain("regions_ignore", CASCADE, "anisotropic", "DiceACE", "n_bins=20"),
)


@dataclass(frozen=True)
class Trained:
    """Folder of a fold that was trained and validated, and of the scan that it predicted."""

    fold: Path
    prediction: Path


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Callable[[Chain], dict[str, Trained]]:
    """Function that trains a chain once; by configuration."""

    @functools.cache
    def train(chain: Chain) -> dict[str, Trained]:
        result: dict[str, Trained] = {}
        for configuration in chain.configurations:
            low_resolution = result.get("3d_lowres")
            result[configuration] = train_and_predict(
                workspace, chain, configuration, low_resolution
            )
        return result

    return train


def train_and_predict(
    workspace: Workspace, chain: Chain, configuration: str, low_resolution: Trained | None
) -> Trained:
    """Train and validate one configuration, and predict the scan without labels."""
    plans = tiny.PLANS[chain.plans]
    fold = "all" if configuration == "3d_lowres" else "0"
    trainer = f"-tr {chain.trainer} -p {plans} -device cpu"
    train = f"nnUNetv2_train {chain.dataset_id} {configuration} {fold} {trainer}"
    if chain.npz:
        train += " --npz"
    # No background workers: they would prepare more batches than these trainings take.
    workspace.run_warm(train, nnUNet_n_proc_DA="0")

    scans = workspace.images(chain.dataset_id)
    output = workspace.folder / "predictions" / f"{chain}_{configuration}"
    model = f"-d {chain.dataset_id} -c {configuration} -f {fold} {trainer}"
    predict = f"nnUNetv2_predict -i {scans} -o {output} {model} -npp 0 -nps 0 --disable_tta"
    if low_resolution is not None:
        predict += f" -prev_stage_predictions {low_resolution.prediction}"
    workspace.run_warm(predict)
    folder = workspace.model_folder(chain.dataset_id, chain.trainer, plans, configuration)
    return Trained(folder / f"fold_{fold}", output)


def read_checkpoint(fold: Path) -> dict:
    return torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)


def assert_calibration_recorded(fold: Path, num_epochs: int) -> None:
    """The final checkpoint has a value for every epoch."""
    logged = read_checkpoint(fold)["logging"]
    assert {len(values) for values in logged.values()} == {num_epochs}
    assert ECE_KEY in logged
    assert min(logged[NLL_KEY]) > 0


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_an_epoch_is_trained_and_recorded(trained, chain: Chain) -> None:
    for stage in trained(chain).values():
        log = training_log(stage.fold)
        losses = [float(value) for value in re.findall(r"(?:train|val)_loss (\S+)", log)]
        assert epochs_in(log) == [0]
        assert len(losses) == 2
        assert np.isfinite(losses).all()
        assert "WARNING: calibration" not in log
        assert_calibration_recorded(stage.fold, 1)
        assert chain.loss in tiny.read_json(stage.fold / "debug.json")["loss"]


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_each_validation_case_is_segmented_and_measured(trained, chain: Chain) -> None:
    for configuration, stage in trained(chain).items():
        validation = stage.fold / "validation"
        cases = {path.name.removesuffix(".nii.gz") for path in validation.glob("*.nii.gz")}
        assert len(cases) == (tiny.NUM_TRAINING if configuration == "3d_lowres" else 1)
        assert len(tiny.read_json(validation / "summary.json")["metric_per_case"]) == len(cases)
        assert len(list(validation.glob("*.npz"))) == (len(cases) if chain.npz else 0)
        measured = tiny.read_json(validation / "calibration.json")["metric_per_case"]
        assert {case["case"] for case in measured} == cases
        if configuration == "3d_lowres":
            next_stage = stage.fold.parent / "predicted_next_stage" / "3d_cascade_fullres"
            assert len(list(next_stage.iterdir())) == tiny.NUM_TRAINING


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_a_scan_is_predicted(workspace: Workspace, trained, chain: Chain) -> None:
    (image,) = workspace.images(chain.dataset_id).iterdir()
    labels = {0, 1, 2} if "ignore" in chain.label_space else {0, 1, 2, 3}
    for stage in trained(chain).values():
        prediction = read(stage.prediction / image.name.replace("_0000", ""))
        assert prediction.shape == read(image).shape
        assert set(np.unique(prediction)) <= labels


@pytest.fixture(scope="module")
def resumed(workspace: Workspace) -> Path:
    """The fold of a training that was killed in its third epoch and then continued."""
    command = f"nnUNetv2_train {tiny.TASK_ID} 2d 0 -tr {RESUMED} -device cpu --npz"
    name = workspace.dataset_folder(workspace.raw, tiny.TASK_ID).name
    fold = workspace.results / name / f"{RESUMED}__nnUNetPlans__2d" / "fold_0"
    process = workspace.start(command)
    try:
        wait_for(lambda: max(epochs_in(training_log(fold)), default=0) >= 2, process)
    finally:
        kill(process)
    assert (fold / "checkpoint_latest.pth").is_file()
    assert not (fold / "checkpoint_final.pth").exists()
    workspace.run(command, "--c")
    return fold


def test_a_killed_training_goes_on_under_its_parameterised_name(resumed: Path) -> None:
    epochs = epochs_in(training_log(resumed))
    assert epochs[0] in (1, 2, 3)
    assert epochs == list(range(epochs[0], 6))
    checkpoint = read_checkpoint(resumed)
    assert checkpoint["trainer_name"] == RESUMED
    assert checkpoint["current_epoch"] == 6
    (group,) = checkpoint["optimizer_state"]["param_groups"]
    assert group["lr"] == pytest.approx(1e-4)
    assert "penalty_weight=0.2" in tiny.read_json(resumed / "debug.json")["loss"]
    assert_calibration_recorded(resumed, 6)


def test_the_best_of_two_trainers_and_their_ensemble(
    workspace: Workspace, trained, resumed: Path
) -> None:
    trained(NACL_2D)
    options = f"-tr {NACL_2D.trainer} {RESUMED} -c 2d -f 0 -np 1"
    workspace.run(f"nnUNetv2_find_best_configuration {tiny.TASK_ID} {options}")
    results = workspace.dataset_folder(workspace.results, tiny.TASK_ID)
    scores = tiny.read_json(results / "inference_information.json")["all_results"]
    assert len(scores) == 3
    assert np.isfinite(list(scores.values())).all()
    ensembles = [name for name in scores if NACL_2D.trainer in name and RESUMED in name]
    assert len(ensembles) == 1


def trained_weights(run: Callable, space: Workspace, tokens: str) -> dict[str, torch.Tensor]:
    """Final weights of a training, which begins anew whatever an earlier one left."""
    name = f"nnUNetTrainerNACL_2epochs_2iters_{tokens}"
    run(f"nnUNetv2_train {tiny.TASK_ID} 2d 0 -tr {name} -device cpu", nnUNet_n_proc_DA="1")
    fold = space.model_folder(tiny.TASK_ID, name, "nnUNetPlans", "2d") / "fold_0"
    checkpoint = read_checkpoint(fold)
    assert (checkpoint["inference_allowed_mirroring_axes"] is None) == ("noda" in tokens)
    return checkpoint["network_weights"]


def test_a_seed_repeats_a_training_to_the_last_digit(workspace: Workspace) -> None:
    first = trained_weights(workspace.run, workspace, "seed3")
    second = trained_weights(workspace.run_warm, workspace, "seed3")
    other = trained_weights(workspace.run_warm, workspace, "noda_seed4")
    for name, weights in first.items():
        assert torch.equal(weights, second[name])
        if name.endswith("conv.weight"):
            assert not torch.equal(weights, other[name])
