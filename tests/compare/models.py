"""Model folders of several trainers that validated the same cases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.case.case import EvaluationSettings
from nnunet_nacl.nnunet.held_out import measure_folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from tests.runs.folders import make_model, write_json

CONFIGURATION, PLANS = "3d_fullres", "nnUNetPlans"
DATASET = "Dataset999_Synthetic"


@dataclass(frozen=True)
class Study:
    """nnU-Net's three folders with models in them."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        return {name: str(self.root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}

    def model(self, trainer: str, dataset: str = DATASET) -> Path:
        return self.root / "nnUNet_results" / dataset / f"{trainer}__{PLANS}__{CONFIGURATION}"

    def validation(self, trainer: str, fold: int | str = 0, dataset: str = DATASET) -> Path:
        return self.model(trainer, dataset) / f"fold_{fold}" / "validation"


def make_study(
    root: Path, trainers: Mapping[str, float], *, datasets: Sequence[str] = (DATASET,), **arguments
) -> Study:
    """Write models of each trainer, by how sharp its predictions are, on each data set.

    Args:
        root: Where everything goes.
        trainers: Sharpness by name: see :func:`tests.runs.folders.random_case`.
        datasets: Names; their cases differ.
        arguments: Of :func:`tests.runs.folders.make_model`.
    """
    study = Study(root)
    for number, dataset in enumerate(datasets):
        for trainer, sharpness in trainers.items():
            made = make_model(root / "made", sharpness=sharpness, seed=number, **arguments)
            plans = json.loads((made.folder / "plans.json").read_text())
            write_json(made.folder / "plans.json", plans | {"dataset_name": dataset})
            study.model(trainer, dataset).parent.mkdir(parents=True, exist_ok=True)
            made.folder.rename(study.model(trainer, dataset))
            # the truth depends on the seed alone, so it is the same for all trainers
            shutil.copytree(made.references.parent, root / "nnUNet_preprocessed" / dataset, dirs_exist_ok=True)
            shutil.rmtree(root / "made")
    return study


def measure(folder: Path, settings: EvaluationSettings = EvaluationSettings()) -> None:
    """Leave the records of a folder of predictions."""
    measure_folders({"": PredictionFolder.open(folder)}, Work(settings=settings))
