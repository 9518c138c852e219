"""A folder of nnU-Net's predictions: finds its cases and ground truth, and loads a case."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.geometry import Geometry, geometry_difference
from nnunet_nacl.case.labels import Labels, smallest_type
from nnunet_nacl.case.probabilities import Probabilities, SavedProbabilities
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_folder
from nnunet_nacl.images import check_name
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.image_files import RERUN, read_probabilities, read_segmentation
from nnunet_nacl.nnunet.locate import (
    PREDICT_ARGUMENTS,
    find_above,
    find_references,
    fold_folders,
    folds_asked_for,
    folds_with,
    list_folder,
    read_dataset,
    read_plans,
    splits_of,
    validation_folder,
)
from nnunet_nacl.nnunet.trust import find_reader, label_manager_of


@dataclass(frozen=True)
class PredictionFolder:
    """A folder of nnU-Net predictions, usually with their ground truth.

    Attributes:
        folder: Where the predictions lie (a fold's ``validation``, or the output of nnUNetv2_predict).
        reference_folder: Where the ground truth lies; None for predictions without.
        dataset_json: Content of dataset.json.
        plans: Content of plans.json.
        expected: Cases that should be there (of a fold's split, or of the reference folder); None if unknown.
    """

    folder: Path
    reference_folder: Path | None
    dataset_json: dict[str, Any]
    plans: dict[str, Any]
    expected: tuple[str, ...] | None = None

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike,
        reference_folder: str | os.PathLike | None = None,
        *,
        dataset_json: str | os.PathLike | None = None,
        plans: str | os.PathLike | None = None,
        need_reference: bool = True,
    ) -> PredictionFolder:
        """Find what belongs to a folder of predictions; UserError where a folder or file is missing or unreadable.

        Args:
            folder: The predictions.
            reference_folder: Ground truth; None takes nnU-Net's own copy in nnUNet_preprocessed, else nnUNet_raw.
            dataset_json: Path of dataset.json; None looks in ``folder`` and up to two levels above.
            plans: Path of plans.json; None looks there too.
            need_reference: Without it no ground truth is looked for, and cases are read without.
        """
        folder, references = Path(folder), None if reference_folder is None else Path(reference_folder)
        check_folder(folder, "the predictions")
        check_name(folder)
        dataset = read_dataset(find_above(folder, "dataset.json", dataset_json, "-djfile"))
        plan = read_plans(find_above(folder, "plans.json", plans, "-pfile"))
        if references is None and need_reference:
            references = find_references(plan.get("dataset_name"), folder)
        if references is not None:
            check_folder(references, "the ground truth")
        result = cls(folder, references, dataset, plan)
        result.labels  # noqa: B018  (a bad label definition is an error of the folder, not of every case)
        return result

    def with_expected(self, fold: str = "all") -> PredictionFolder:
        """The folder with the cases that should be there: every one of the ground truth, or those of a fold's split.

        Of folds beyond splits_final.json, for which nnU-Net makes a random split, nothing is known. UserError for
        ``all`` where there is no ground truth.
        """
        if fold != "all":
            splits, number = splits_of(self.plans.get("dataset_name")), int(fold)
            return replace(self, expected=tuple(sorted(splits[number]["val"])) if number < len(splits) else None)
        ending = self.file_ending
        names = list_folder(self.reference_folder)[0] if self.reference_folder else ()
        expected = tuple(sorted(name[: -len(ending)] for name in names if name.endswith(ending)))
        if not expected:
            none = f"{self.reference_folder} holds no ground truth (no *{ending}, as dataset.json has it)"
            raise UserError(f"{none}; give the right folder.")
        return replace(self, expected=expected)

    @property
    def file_ending(self) -> str:
        """Ending of the segmentation files, such as ``.nii.gz``."""
        return self.dataset_json["file_ending"]

    @property
    def channel_names(self) -> list[str]:
        """Names of the image channels; none where dataset.json does not name them."""
        return list(map(str, self.dataset_json.get("modality", self.dataset_json.get("channel_names", {})).values()))

    @property
    def num_channels(self) -> int:
        """Image channels of this data set; 0 where dataset.json does not name them."""
        return len(self.channel_names)

    @cached_property
    def labels(self) -> Labels:
        """The structures, through nnU-Net's label manager."""
        return Labels.of(self.label_manager, self.dataset_json, self.folder)

    @cached_property
    def label_manager(self) -> Any:
        """nnU-Net's label manager of this data set."""
        return label_manager_of(self.plans, self.dataset_json, self.folder)

    @cached_property
    def reader(self) -> Any:
        """nnU-Net's reader and writer of this data set's images: it decides the order and orientation of array axes."""
        return find_reader(self.plans, self.dataset_json, self.folder)

    def cases(self, *, chill: bool = False, known: Container[str] = ()) -> tuple[list[str], dict[str, str]]:
        """Names of the cases that can be read, in order, and by name what is wrong with the others.

        Args:
            chill: Do not report expected cases that have no prediction (nnU-Net's word for it).
            known: Cases that need no probabilities, because they have a record.

        Raises:
            UserError: There is no prediction at all.
        """
        ending = self.file_ending
        files, others = list_folder(self.folder)
        segmentations = {file.removesuffix(ending) for file in files if file.endswith(ending)}
        probabilities = {file.removesuffix(".npz") for file in files if file.endswith(".npz")}
        if not segmentations | probabilities:
            none = f"no *{ending}, as dataset.json has it, no *.npz"
            raise UserError(f"{self.folder} holds no predictions ({none}); {RERUN}.")
        found, problems = [], {}
        for case in sorted(segmentations | probabilities):
            reference, npz = self.files(case).get("reference"), self.folder / f"{case}.npz"
            if reference is not None and not reference.is_file():
                problems[case] = f"{reference}: no ground truth of this case; add it or remove the prediction."
            elif self.expected is not None and case not in self.expected:
                problems[case] = f"{npz} is not in the validation split of this fold; remove what others left."
            elif case not in probabilities and case not in known:
                fault = "is no file, or a link that leads nowhere" if npz.name in others else "is missing"
                problems[case] = f"{npz} {fault}; {RERUN}."
            else:
                found.append(case)
        if self.expected is not None and not chill:
            for case in sorted(set(self.expected) - segmentations - probabilities):
                problems[case] = f"{self.folder / case}{ending} and .npz are missing; {RERUN}, or pass --chill."
        return found, problems

    def files(self, case: str) -> dict[str, Path | None]:
        """Where the ``segmentation`` of a case lies, None if there is none, and where its other files belong.

        These are ``probabilities`` and, where there is ground truth, ``reference``.
        """
        segmentation = self.folder / f"{case}{self.file_ending}"
        files = {"segmentation": segmentation if segmentation.is_file() else None}
        files["probabilities"] = self.folder / f"{case}.npz"
        return files | ({"reference": self.reference_folder / segmentation.name} if self.reference_folder else {})

    def images(self, case: str) -> list[Path]:
        """The files of a case's channels; UserError without any.

        dataset.json may list them; else they are numbered, in the input folder of nnUNetv2_predict, as recorded beside
        the predictions, or in nnUNet_raw.
        """
        root = os.environ.get("nnUNet_raw")
        dataset = Path(root or os.devnull) / self.plans.get("dataset_name", "")
        with contextlib.suppress(KeyError, TypeError):  # it lists none, or something else
            images = [os.path.expandvars(image) for image in self.dataset_json["dataset"][case]["images"]]
            if root and images:
                return [dataset / image for image in images]
        places = [dataset / "imagesTr", dataset / "imagesTs"]
        with contextlib.suppress(UserError, KeyError, TypeError):  # given a list, or not nnUNetv2_predict's
            places.insert(0, Path(read_dict(self.folder / PREDICT_ARGUMENTS)["list_of_lists_or_source_folder"]))
        for place in places:
            files: list[Path] = []
            while (file := place / f"{case}_{len(files):04d}{self.file_ending}").is_file():
                files.append(file)
            if files:
                return files
        if not root:
            raise UserError("the environment variable nnUNet_raw is not set; the images lie there.")
        raise UserError(f"{places[0] / case}_0000{self.file_ending}: no such image.")

    def load(self, case: str, *, probabilities: bool = True) -> Case:
        """Read one case, with its truth where the folder was opened with one.

        Args:
            case: Its name.
            probabilities: Read the probabilities, from which the segmentation follows if there is none.

        Raises:
            UserError: A file is missing, cannot be read or does not fit the others; the message names it.
        """
        path, npz, reference = map(self.files(case).get, ("segmentation", "probabilities", "reference"))
        if path is None and not (reference and probabilities):
            also = "" if reference else ", and with it where the image lies"
            raise UserError(f"{self.folder / case}{self.file_ending} is missing{also}; {RERUN}.")
        segmentation: Any = None
        truth: Any = None
        like, properties = None, dict[str, Any]()
        if path is not None:
            segmentation, properties = self.read_labels(path)
            place, shape, beside = Geometry.of(properties), segmentation.shape, f"segmentation {path.name}"
            like = f"prediction {path}", place, shape
        if reference is not None:
            truth, of_truth = self.read_labels(reference, is_truth=True, like=like)
            place, shape, beside = Geometry.of(of_truth), truth.shape, f"ground truth {reference.name}"
        source = Probabilities()
        if probabilities and npz is not None:
            source = SavedProbabilities(read_probabilities(npz, self.labels, shape, beside), self.labels.regions)
            segmentation = self.labels.label_map(source.probs) if segmentation is None else segmentation
        saved = npz if probabilities else None
        return Case(case, self.labels, place, segmentation, source, truth, properties, saved)

    def read_labels(
        self, path: Path, *, is_truth: bool = False, like: tuple[str, Geometry, tuple[int, ...]] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """(*spatial) label map in the smallest type, and where it lies, by nnU-Net's reader.

        Args:
            path: Of the label map.
            is_truth: Whether it is the ground truth, which alone may hold the ignore label.
            like: What it belongs to: in words, where it lies, and its shape.

        Raises:
            UserError: It cannot be read, holds labels that dataset.json does not have, or lies elsewhere.
        """
        array, properties = read_segmentation(self.reader, path)
        self.labels.check(array, path, is_truth=is_truth)
        if like is not None:
            other, place, shape = like
            if differing := geometry_difference(Geometry.of(properties), place, array.shape, shape):
                fix = "give the one that belongs to it, or resample it"
                raise UserError(f"{path}: other geometry than the {other} ({differing}); {fix}.")
        return smallest_type(array), properties


def find_fold_folders(model: Path, folds: Sequence[str | int] | None = None) -> dict[str, PredictionFolder]:
    """The validation folders of a model's folds by fold, in order.

    Args:
        model: The model folder.
        folds: Folds 0, 1, ... or ``all`` (nnU-Net's fold_all); None takes every numbered fold that has a validation
            folder, or fold_all where there is none.

    Raises:
        UserError: One that is asked for is no fold's name, a fold has no validation folder, or there is none at all.
    """
    if folds is None:
        present = [fold for fold, folder in fold_folders(model).items() if validation_folder(folder).is_dir()]
        # fold_all holds the same cases as the folds: only on its own
        folds = sorted((fold for fold in present if fold != "all"), key=int) or present
        if not folds:
            raise UserError(f"{model} has no fold with a validation folder; finish a training first.")
    result = {}
    for fold in folds_asked_for(folds):
        folder = validation_folder(model / f"fold_{fold}")
        if not folder.is_dir():
            present = folds_with(model, "validation")
            raise UserError(
                f"{folder}: no such folder (folds there: {', '.join(present) or 'none'}); train this fold or {RERUN}."
            )
        result[fold] = PredictionFolder.open(folder).with_expected(fold)
    return result
