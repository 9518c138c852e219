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
    """A trainer on a data set; `loss` is what debug.json must say, `npz` whether the last
    validation keeps them."""

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
        base, *adam = self.method.split("_adam")
        return f"nnUNetTrainer{base}{SCHEDULE}" + "_adam" * len(adam)

    def __str__(self) -> str:
        return f"{self.label_space}-{self.configurations[-1]}-{self.plans}-{self.method}"


# needs the network of the low resolution, on all cases
CASCADE = ("3d_lowres", "3d_cascade_fullres")
NACL_2D = Chain("classes", ("2d",), "default", "NACL", "kernel_size=(3, 3)", npz=True)
CHAINS = (  # every method, and every pair of label space, configuration and plans
    NACL_2D,
    Chain(
        "classes", ("3d_fullres",), "resenc", "DiceNACL_anneal", "kernel_size=(3, 3, 3)", npz=True
    ),
    Chain("classes", CASCADE, "anisotropic", "SVLS", "kernel_size=(1, 3, 3)"),
    Chain("ignore", ("2d",), "resenc", "MbLS", "margin=5.0"),
    Chain(
        "ignore",
        ("3d_fullres",),
        "anisotropic",
        "NACL_gaussian_l2",
        "kernel_size=(1, 3, 3)",
        npz=True,
    ),
    Chain("ignore", CASCADE, "default", "DiceFocal", "gamma=3.0"),
    Chain("regions", ("2d",), "anisotropic", "LS", "smoothing=0.1"),
    Chain("regions", ("3d_fullres",), "default", "ECP_sum", "class_reduction='sum'", npz=True),
    Chain("regions", CASCADE, "resenc", "NACL_adam", "kernel_size=(3, 3, 3)"),
    Chain("regions_ignore", ("2d",), "default", "CE", "CELoss"),
    Chain(
        "regions_ignore", ("3d_fullres",), "resenc", "DiceSVLS", "kernel_size=(3, 3, 3)", npz=True
    ),
    Chain("regions_ignore", CASCADE, "anisotropic", "DiceACE", "n_bins=20"),
)


@pytest.fixture(scope="module")
def trained(workspace: Workspace) -> Callable[[Chain], dict[str, tuple[Path, Path]]]:
    """Trains and validates a chain once: folder of the fold, and of the predicted image, by
    configuration."""

    @functools.cache
    def train(chain: Chain) -> dict[str, tuple[Path, Path]]:
        found, plans = {}, tiny.PLANS[chain.plans]
        for configuration in chain.configurations:
            fold = "all" if configuration == "3d_lowres" else "0"
            which = f"-tr {chain.trainer} -p {plans}"
            npz = "--npz" if chain.npz else ""
            # No background workers: they would prepare more batches than these trainings take.
            command = (
                f"nnUNetv2_train {chain.dataset_id} {configuration} {fold} {which} -device cpu"
                f" {npz}"
            )
            workspace.run_warm(command, nnUNet_n_proc_DA="0")
            if configuration == "3d_cascade_fullres":
                which += f" -prev_stage_predictions {found['3d_lowres'][1]}"
            out = workspace.folder / "predictions" / f"{chain}_{configuration}"
            model = f"-d {chain.dataset_id} -c {configuration} -f {fold} {which} -device cpu"
            scans = workspace.images(chain.dataset_id)
            workspace.run_warm(
                f"nnUNetv2_predict -i {scans} -o {out} {model} -npp 0 -nps 0 --disable_tta"
            )
            folder = workspace.model_folder(chain.dataset_id, chain.trainer, plans, configuration)
            found[configuration] = folder / f"fold_{fold}", out
        return found

    return train


def assert_calibration_recorded(fold: Path, num_epochs: int) -> None:
    """The final checkpoint has a value for every epoch."""
    logged = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)[
        "logging"
    ]
    assert {len(values) for values in logged.values()} == {num_epochs}
    assert ECE_KEY in logged and min(logged[NLL_KEY]) > 0


@pytest.mark.parametrize("chain", CHAINS, ids=str)
def test_it_trains_validates_and_predicts(workspace: Workspace, trained, chain: Chain) -> None:
    (image,) = workspace.images(chain.dataset_id).iterdir()
    for configuration, (fold, out) in trained(chain).items():
        log = training_log(fold)
        losses = [float(value) for value in re.findall(r"(?:train|val)_loss (\S+)", log)]
        assert epochs_in(log) == [0] and len(losses) == 2 and np.isfinite(losses).all()
        assert "WARNING: calibration" not in log
        assert_calibration_recorded(fold, 1)
        assert chain.loss in tiny.read_json(fold / "debug.json")["loss"]

        validation = fold / "validation"
        cases = {path.name.removesuffix(".nii.gz") for path in validation.glob("*.nii.gz")}
        assert len(cases) == (tiny.NUM_TRAINING if configuration == "3d_lowres" else 1)
        assert len(tiny.read_json(validation / "summary.json")["metric_per_case"]) == len(cases)
        assert len(list(validation.glob("*.npz"))) == (len(cases) if chain.npz else 0)
        measured = tiny.read_json(validation / "calibration.json")["metric_per_case"]
        assert {case["case"] for case in measured} == cases

        prediction = read(out / image.name.replace("_0000", ""))
        assert prediction.shape == read(image).shape
        assert set(np.unique(prediction)) <= set(range(3 if "ignore" in chain.label_space else 4))
        if configuration == "3d_lowres":
            next_stage = fold.parent / "predicted_next_stage" / "3d_cascade_fullres"
            assert len(list(next_stage.iterdir())) == tiny.NUM_TRAINING


@pytest.fixture(scope="module")
def resumed(workspace: Workspace) -> Path:
    """The fold of a training that was killed in its third epoch and then continued."""
    command = ("nnUNetv2_train", tiny.TASK_ID, "2d", "0", "-tr", RESUMED, "-device", "cpu", "--npz")
    name = workspace.dataset_folder(workspace.raw, tiny.TASK_ID).name
    fold = workspace.results / name / f"{RESUMED}__nnUNetPlans__2d" / "fold_0"
    process = workspace.start(*command)
    try:
        wait_for(lambda: max(epochs_in(training_log(fold)), default=0) >= 2, process)
    finally:
        kill(process)
    assert (fold / "checkpoint_latest.pth").is_file() and not (
        fold / "checkpoint_final.pth"
    ).exists()
    workspace.run(*command, "--c")
    return fold


def test_a_killed_training_goes_on_under_its_parameterised_name(resumed: Path) -> None:
    epochs = epochs_in(training_log(resumed))
    assert epochs[0] in (1, 2, 3) and epochs == list(range(epochs[0], 6))
    checkpoint = torch.load(
        resumed / "checkpoint_final.pth", map_location="cpu", weights_only=False
    )
    assert checkpoint["trainer_name"] == RESUMED and checkpoint["current_epoch"] == 6
    (group,) = checkpoint["optimizer_state"]["param_groups"]
    assert group["lr"] == pytest.approx(1e-4)
    assert "penalty_weight=0.2" in tiny.read_json(resumed / "debug.json")["loss"]
    assert_calibration_recorded(resumed, 6)


def test_the_best_of_two_trainers_and_their_ensemble(
    workspace: Workspace, trained, resumed: Path
) -> None:
    trained(NACL_2D)
    trainers = f"{NACL_2D.trainer} {RESUMED}"
    workspace.run(
        f"nnUNetv2_find_best_configuration {tiny.TASK_ID} -tr {trainers} -c 2d -f 0 -np 1"
    )
    results = workspace.dataset_folder(workspace.results, tiny.TASK_ID)
    scores = tiny.read_json(results / "inference_information.json")["all_results"]
    assert len(scores) == 3 and np.isfinite(list(scores.values())).all()
    assert any(NACL_2D.trainer in name and RESUMED in name for name in scores), (
        "no ensemble of the two"
    )


def trained_weights(run: Callable, space: Workspace, tokens: str) -> dict[str, torch.Tensor]:
    """The final weights of a training that starts from nothing, whatever an earlier one of its name
    left."""
    name = f"nnUNetTrainerNACL_2epochs_2iters_{tokens}"
    run(
        "nnUNetv2_train",
        tiny.TASK_ID,
        "2d",
        "0",
        "-tr",
        name,
        "-device",
        "cpu",
        nnUNet_n_proc_DA="1",
    )
    fold = space.model_folder(tiny.TASK_ID, name, "nnUNetPlans", "2d") / "fold_0"
    checkpoint = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert (checkpoint["inference_allowed_mirroring_axes"] is None) == ("noda" in tokens)
    return checkpoint["network_weights"]


def test_a_seed_repeats_a_training_to_the_last_digit(workspace: Workspace) -> None:
    runs = (
        (workspace.run, "seed3"),
        (workspace.run_warm, "seed3"),
        (workspace.run_warm, "noda_seed4"),
    )
    first, second, other = (trained_weights(run, workspace, tokens) for run, tokens in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(
        torch.equal(first[name], other[name]) for name in first if name.endswith("conv.weight")
    )
