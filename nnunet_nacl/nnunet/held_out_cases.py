"""Where `calibrate` and `evaluate` take cases from that networks were not trained on: saved
predictions, a model's validation cases, or images that its networks predict."""

from __future__ import annotations

import contextlib
import filecmp
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nnunet_nacl.cases.case import EvaluationSettings, InferenceSettings
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.folders import predicted_folder, splits_of, validation_folder
from nnunet_nacl.nnunet.held_out import HeldOut, inference_of, kept_settings, measure_folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder, find_fold_folders
from nnunet_nacl.nnunet.records import Work, records_of
from nnunet_nacl.nnunet.scans import Images
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.validation import measure_validation
from nnunet_nacl.settings import NetworkSettings
from nnunet_nacl.utilities.errors import UserError, list_problems, some
from nnunet_nacl.utilities.files import check_folder

_LOG = logging.getLogger(__name__)


class HeldOutCases(ABC):
    """Cases with their ground truth, which networks were not trained on.

    Attributes:
        dataset: Labels, files and reader.
        name: What they are called.
        folders: Whose records tell how an earlier run measured them; of predictions also these.
        model: Whose networks predict them; None where that is not known.
        is_predicted_as_deployed: Whether they are predicted as new cases will be, and not each by
            the fold that was not trained on it.
    """

    dataset: Dataset
    name: str
    folders: Sequence[Path]
    model: TrainedModel | None
    is_predicted_as_deployed = True

    @abstractmethod
    def find(self) -> tuple[list[str], dict[str, str]]:
        """Before anything is measured: names of the cases, and by name why there are no others.

        Some cases may turn out to be damaged. Both are empty where nothing is known.
        """

    @abstractmethod
    def measure(self, work: Work, num_processes: int) -> HeldOut:
        """A record of each case, which is predicted first where it must be."""

    @property
    def kept_settings(self) -> EvaluationSettings:
        """What records measured that are there, so that a user's choice is kept; else the
        default."""
        for folder in self.folders:
            settings = kept_settings(folder)
            if settings is not None:
                return settings
        return self.dataset.settings

    def inference(self, held_out: HeldOut) -> InferenceSettings:
        """How networks predicted; empty where that is not known."""
        return inference_of(held_out.records.values()) if self.model is not None else {}


@dataclass
class SavedCases(HeldOutCases):
    """Saved predictions, of a folder or of a model's folds.

    Attributes:
        name: What they are called.
        by_fold: The folders by fold; a single one has the empty name.
        chill: Whether expected cases that have no prediction are no problems.
    """

    name: str
    by_fold: Mapping[str, PredictionFolder]
    chill: bool = True
    model = None
    dataset: Dataset = field(init=False)
    folders: Sequence[Path] = field(init=False)

    def __post_init__(self) -> None:
        self.dataset = next(iter(self.by_fold.values())).dataset
        self.folders = [folder.folder for folder in self.by_fold.values()]

    @classmethod
    def of_validation(
        cls, model: Path, folds: Sequence[str | int] | None, checkpoint: str, chill: bool
    ) -> SavedCases:
        """The validation folders of a model's folds and checkpoint; None: of all folds that have
        one."""
        by_fold = find_fold_folders(model, folds, checkpoint)
        return cls(name_of_folds(model, by_fold), by_fold, chill)

    def find(self) -> tuple[list[str], dict[str, str]]:
        """Those of the predictions; a folder without any is left to :meth:`measure`."""
        names: list[str] = []
        problems: dict[str, str] = {}
        for folder in self.by_fold.values():
            with contextlib.suppress(UserError):
                names += folder.names
                problems |= folder.problems
        return names, problems

    def measure(self, work: Work, num_processes: int) -> HeldOut:
        """The records of all cases."""
        return measure_folders(
            self.by_fold, work, jobs=num_processes, chill=self.chill, title="measuring"
        )


@dataclass
class ValidationOfModel(HeldOutCases):
    """A model's validation cases, each predicted by the fold that was not trained on it.

    Attributes:
        model: The model.
        network: How its networks predict, on a device that is here.
        any_age: Take predictions that are older than the checkpoint.
        anew: Predict all cases, whatever nnU-Net has left.
    """

    model: TrainedModel
    network: NetworkSettings
    any_age: bool = False
    anew: bool = False
    is_predicted_as_deployed = False
    dataset: Dataset = field(init=False)
    name: str = field(init=False)
    folders: Sequence[Path] = field(init=False)

    def __post_init__(self) -> None:
        find_folder = predicted_folder if self.anew else validation_folder
        folds = [self.model.folder / f"fold_{fold}" for fold in self.model.folds]
        self.dataset = self.model.dataset
        self.name = name_of_folds(self.model.folder, self.model.folds)
        self.folders = [find_folder(fold, self.model.checkpoint) for fold in folds]
        if "all" in self.model.folds and not self.anew:
            raise UserError(
                "fold all was trained on every case, its validation cases too: nothing is held out."
                " Name trained folds, such as 0 1 2 3 4, or give images of your own with their"
                " ground truth."
            )

    def find(self) -> tuple[list[str], dict[str, str]]:
        """Those of the splits, and where a fold has none there those of its validation."""
        splits = splits_of(self.dataset.name)
        names: list[str] = []
        for fold, folder in zip(self.model.folds, self.folders):
            if fold != "all" and int(fold) < len(splits):
                names += splits[int(fold)]["val"]
            elif folder.is_dir():
                names += PredictionFolder.open(folder).names
        return names, {}

    def measure(self, work: Work, num_processes: int) -> HeldOut:
        """The records of all cases, predicted where nothing was kept."""
        held_out = measure_validation(
            self.model,
            self.network,
            work,
            jobs=num_processes,
            any_age=self.any_age,
            anew=self.anew,
        )
        if self.anew:  # problems of cases that others left there
            for folder in held_out.folders.values():
                if not folder.is_empty:
                    held_out.problems = folder.problems | held_out.problems
        return held_out


@dataclass
class ImagesOfModel(HeldOutCases):
    """Images with ground truth, which all folds of a model predict together.

    Attributes:
        model: The model.
        network: How its networks predict, on a device that is here.
        images: Their folder.
        labels: That of the ground truth.
        records: Where their records lie.
        training_cases: Also take cases that the folds were trained on.
    """

    model: TrainedModel
    network: NetworkSettings
    images: Path
    labels: Path
    records: Path
    training_cases: bool = False
    dataset: Dataset = field(init=False)
    name: str = field(init=False)
    folders: Sequence[Path] = field(init=False)

    def __post_init__(self) -> None:
        self.dataset = self.model.dataset
        self.name = str(self.images)
        self.folders = [self.model.folder]

    @cached_property
    def _source(self) -> Images:
        """The images that have a label map.

        UserError where the model is a cascade, no image has a label map, or folds were trained on
        some of the cases.
        """
        model = self.model
        check_folder(self.images, "the images, or the predictions")
        _LOG.info(
            "%s is taken for images: folds %s predict them; records go to %s.",
            self.images,
            ", ".join(model.folds),
            self.records,
        )
        source = Images.find(model, self.network, self.images, references=self.labels)
        if model.previous_stage is not None:
            raise UserError(
                f"{model.folder.name} is a cascade, which needs segmentations of"
                f" {model.previous_stage} beside images: predict them with `nnUNetv2_predict ..."
                " --save_probabilities`, and give that folder without a model."
            )
        _leave_out_unlabelled(source)
        if not self.training_cases:
            _check_not_trained_on(source)
        return source

    def find(self) -> tuple[list[str], dict[str, str]]:
        """Those of the images that have a label map."""
        return list(self._source.names), self._source.problems

    def measure(self, work: Work, num_processes: int) -> HeldOut:
        """Predict and measure the images that have a label map; what an earlier run finished is
        kept."""
        source = self._source
        held_out = HeldOut(source.labels, work.settings, problems=source.problems)
        records = work.records_beside(self.records)
        outcomes = records_of(source, work, records, jobs=num_processes, title="predicting")
        held_out.add("", dict(outcomes))
        return held_out


def name_of_folds(model: Path, folds: Iterable[str]) -> str:
    """A model and its folds, for people."""
    return f"{model.parent.name}, {model.name}, fold {' '.join(folds)}"


def _leave_out_unlabelled(source: Images) -> None:
    """Leave out the images without a label map; UserError where none has one."""
    n_images = len(source.scans)
    labelled = {}
    for name, scan in source.scans.items():
        truth = source.files(name)["reference"]
        if truth is not None and truth.is_file():
            labelled[name] = scan
    source.scans = labelled
    if not labelled:
        ending = source.model.dataset.file_ending
        raise UserError(
            f"{source.references}: holds the label map (CASE{ending}) of none of the"
            f" {n_images} images.{list_problems(source.problems)}"
        )


def _check_not_trained_on(source: Images) -> None:
    """UserError where folds were trained on some of the images."""
    trained = _trained_on(source)
    if trained:
        raise UserError(
            f"{len(trained)} of {len(source.scans)} cases were used to train these folds:"
            f" {some(trained)}. On them networks are right too often: give other cases, or pass"
            " [[training_cases=True]]."
        )


def _trained_on(source: Images) -> list[str]:
    """Names of the cases that folds were trained on.

    They are in the training part of a fold, and have the label map or the first channel that
    nnU-Net had: other cases may have the same names.
    """
    # os.devnull is a path below which no file can lie
    dataset = source.model.dataset.name or os.devnull
    preprocessed = Path(os.environ.get("nnUNet_preprocessed") or os.devnull)
    raw = Path(os.environ.get("nnUNet_raw") or os.devnull)
    names_in_training = _names_in_training(source, dataset)
    trained = []
    for case in source.names:
        if case not in names_in_training:
            continue
        truth = source.files(case)["reference"] or Path()
        image = source.path(case)
        if _is_same_file(
            truth, preprocessed / dataset / "gt_segmentations" / truth.name
        ) or _is_same_file(image, raw / dataset / "imagesTr" / image.name):
            trained.append(case)
    return trained


def _names_in_training(source: Images, dataset: str) -> set[str]:
    """Names of the cases in the training part of one of a model's folds.

    fold_all, and random splits beyond those of the file, may have seen any case.
    """
    splits = splits_of(dataset)
    names: set[str] = set()
    for fold in source.model.folds:
        if fold == "all" or int(fold) >= len(splits):
            return set(source.names)
        names |= set(splits[int(fold)]["train"])
    return names


def _is_same_file(path: Path, other: Path) -> bool:
    """Whether another file is there, and holds the same."""
    return other.is_file() and filecmp.cmp(path, other, shallow=False)
