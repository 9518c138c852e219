"""Model folders of several trainers that validated the same cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.nnunet.held_out import measure_folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from tests.runs.folders import Model, make_model

CONFIGURATION = "3d_fullres"
PLANS = "nnUNetPlans"
DATASET = "Dataset999_Synthetic"


@dataclass(frozen=True)
class Study:
    """nnU-Net's three folders with models in them."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        return Model(self.root, DATASET).environment

    def model(self, trainer: str, dataset: str = DATASET) -> Path:
        return Model(self.root, dataset, trainer).folder

    def validation(self, trainer: str, fold: int | str = 0) -> Path:
        return Model(self.root, DATASET, trainer).validation(fold)


def make_study(
    root: Path, trainers: Mapping[str, float], *, datasets: Sequence[str] = (DATASET,), **arguments
) -> Study:
    """Write models of each trainer, by how sharp its predictions are, on each data set; their cases
    differ."""
    for number, dataset in enumerate(datasets):
        for trainer, sharpness in trainers.items():  # the truth depends on the seed alone
            make_model(
                root,
                dataset=dataset,
                trainer=trainer,
                sharpness=sharpness,
                seed=number,
                **arguments,
            )
    return Study(root)


def measure(folder: Path, settings: EvaluationSettings = EvaluationSettings()) -> None:
    """Leave the records of a folder of predictions."""
    measure_folders({"": PredictionFolder.open(folder)}, Work(settings=settings))
