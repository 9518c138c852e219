"""The cases that `calibrate` fits a map to: a model's validation cases, images of one's own that a
model predicts, or saved predictions."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from nnunet_nacl.calibrator.calibration_map import CalibrationMap
from nnunet_nacl.calibrator.map_file import APPLIED_FILE, MAP_FILE, map_of_folds
from nnunet_nacl.calibrator.map_parts import Inference
from nnunet_nacl.cases.case import EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_folder
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.held_out import HeldOut, inference_of, kept_settings, measure_folders
from nnunet_nacl.nnunet.labelled_images import measure_images
from nnunet_nacl.nnunet.places import validation_folder
from nnunet_nacl.nnunet.predicted import on_present_device
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.validation import measure_validation
from nnunet_nacl.settings import NetworkSettings

_LOG = logging.getLogger(__name__)


class CalibrationCases(ABC):
    """Cases with their ground truth, which the networks were not trained on."""

    @property
    @abstractmethod
    def dataset(self) -> Dataset:
        """Labels, plans and reader."""

    @property
    @abstractmethod
    def source(self) -> str:
        """Where they come from, as the map says it."""

    @property
    def model(self) -> TrainedModel | None:
        """The model whose networks predict; None where it is not known."""
        return None

    @property
    def is_predicted_as_deployed(self) -> bool:
        """Whether they are predicted as new cases will be, and not by networks of a
        cross-validation."""
        return True

    @abstractmethod
    def measure(self, num_processes: int) -> HeldOut:
        """A record of each case, which is predicted first where it must be."""

    def read_inference(self, held_out: HeldOut) -> Inference:
        """How their networks predicted; empty where that is not known."""
        return {}

    def find_map_of_folds(self, held_out: HeldOut) -> CalibrationMap | None:
        """The map of the model's validation cases, towards which one of these cases is shrunk; None
        where there is none."""
        return None


@dataclass(frozen=True)
class PredictedCases(CalibrationCases):
    """Saved predictions.

    Attributes:
        folder: Of segmentations with their probabilities, and their ground truth.
        given_folder: The same as it was named.
    """

    folder: PredictionFolder
    given_folder: Path

    @classmethod
    def open(
        cls,
        folder: Path,
        labels: str | PathLike | None,
        dataset_json: str | PathLike | None,
        plans_json: str | PathLike | None,
    ) -> PredictedCases:
        """A folder of predictions; UserError where they are calibrated already."""
        check_folder(folder, "the images, or the predictions")
        _LOG.info("%s is taken for a folder of predictions; name a model, too, for images.", folder)
        if (folder / APPLIED_FILE).is_file():
            raise UserError(
                f"{folder} is calibrated already; give the folder that it was made from."
            )
        opened = PredictionFolder.open(folder, labels, dataset_json=dataset_json, plans=plans_json)
        return cls(opened, folder)

    @property
    def dataset(self) -> Dataset:
        return self.folder.dataset

    @property
    def source(self) -> str:
        return str(self.given_folder.resolve())

    def measure(self, num_processes: int) -> HeldOut:
        settings = _choose_settings([self.folder.folder], self.dataset)
        work = Work(settings=settings, with_sample=True)
        return measure_folders({"": self.folder}, work, jobs=num_processes, title="measuring")


@dataclass(frozen=True, kw_only=True)
class CasesOfModel(CalibrationCases):
    """Cases that the networks of a model predict.

    Attributes:
        trained: The model.
        given_folder: Its folder as it was named.
        network: How its networks predict.
    """

    trained: TrainedModel
    given_folder: str | PathLike
    network: NetworkSettings

    @property
    def dataset(self) -> Dataset:
        return self.trained.dataset

    @property
    def source(self) -> str:
        return str(self.given_folder)

    @property
    def model(self) -> TrainedModel:
        return self.trained

    def read_inference(self, held_out: HeldOut) -> Inference:
        return inference_of(held_out.records.values())


@dataclass(frozen=True, kw_only=True)
class ValidationCases(CasesOfModel):
    """The model's validation cases, each predicted by the fold that was not trained on it.

    Attributes:
        any_age: Take predictions that are older than the checkpoint.
    """

    any_age: bool

    @property
    def is_predicted_as_deployed(self) -> bool:
        return False

    def measure(self, num_processes: int) -> HeldOut:
        model = self.trained
        if "all" in model.folds:
            raise UserError(
                "fold all was trained on every case, its validation cases too: nothing is held out."
                " Name trained folds, such as 0 1 2 3 4, or give images of your own with their"
                " ground truth."
            )
        folders = []
        for fold in model.folds:
            folders.append(validation_folder(model.folder / f"fold_{fold}", model.checkpoint))
        work = Work(settings=_choose_settings(folders, model.dataset), with_sample=True)
        network = on_present_device(self.network)
        return measure_validation(model, network, work, jobs=num_processes, any_age=self.any_age)


@dataclass(frozen=True, kw_only=True)
class OwnImages(CasesOfModel):
    """Images with ground truth, which all folds of the model predict together.

    Attributes:
        images: Their folder.
        labels: That of the ground truth.
        map_file: The map's file, beside which the records lie.
        training_cases: Also take cases that the folds were trained on.
    """

    images: Path
    labels: Path
    map_file: Path
    training_cases: bool

    def measure(self, num_processes: int) -> HeldOut:
        model = self.trained
        check_folder(self.images, "the images, or the predictions")
        records = self.map_file.with_name(f"{self.map_file.stem}_records")
        _LOG.info(
            "%s is taken for images: folds %s predict them; records go to %s.",
            self.images,
            ", ".join(model.folds),
            records,
        )
        settings = _choose_settings([model.folder], model.dataset)
        work = Work(settings=settings, with_sample=True)
        network = on_present_device(self.network)
        source = Images.find(model, network, self.images, references=self.labels)
        return measure_images(
            source, records, work, jobs=num_processes, training_cases=self.training_cases
        )

    def find_map_of_folds(self, held_out: HeldOut) -> CalibrationMap | None:
        model = self.trained
        checksums = dict(zip(model.folds, model.hashes))
        inference = self.read_inference(held_out)
        return map_of_folds(model.folder / MAP_FILE, held_out.labels, checksums, inference)


def _choose_settings(folders: Sequence[Path], dataset: Dataset) -> EvaluationSettings:
    """What is measured: as in the records that are there, so that a user's choice is kept, else the
    default."""
    for folder in folders:
        settings = kept_settings(folder)
        if settings is not None:
            return settings
    return dataset.settings
