"""Finds nnU-Net's models, folds, data sets and ground truth; opens folders of predictions and loads their cases."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.case.case import LARGEST_RADIUS_MM, Case, EvaluationSettings, Labels, smallest_type
from nnunet_nacl.case.geometry import Geometry, geometry_difference
from nnunet_nacl.case.probabilities import Probabilities, SavedProbabilities
from nnunet_nacl.case.record import RECORDS
from nnunet_nacl.errors import UserError, first_line, some
from nnunet_nacl.files import check_folder, is_file_name
from nnunet_nacl.images import check_name
from nnunet_nacl.json_files import decode, read_dict, read_json
from nnunet_nacl.nnunet.image_files import RERUN, read_probabilities, read_segmentation
from nnunet_nacl.nnunet.trust import find_reader, label_manager_of

PREDICT_ARGUMENTS = "predict_from_raw_data_args.json"
"""What nnUNetv2_predict was asked to do, beside its predictions."""
_FOLD = re.compile("all|0|[1-9][0-9]*")  # nnU-Net takes int("0_1") and int("²") for numbers, too


class _Dataset(TypedDict):  # what is read of dataset.json
    labels: dict[str, Any]
    file_ending: str
    channel_names: NotRequired[dict[str, Any]]
    modality: NotRequired[dict[str, Any]]


class _Plans(TypedDict):  # what is read of plans.json
    dataset_name: NotRequired[str]
    image_reader_writer: NotRequired[str]
    configurations: NotRequired[dict[str, dict[str, Any]]]
    original_median_spacing_after_transp: NotRequired[list[float]]


class Split(TypedDict):
    """Of a fold, names of the cases."""

    train: list[str]
    val: list[str]


def list_folder(folder: Path) -> tuple[list[str], set[str]]:
    """Names of the files in a folder, and of all else: folders, links that lead nowhere or in circles."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); change its permissions.") from None
    files = [name for name in names if os.path.isfile(folder / name)]
    return files, set(names).difference(files)


def find_above(folder: Path, name: str, given: str | os.PathLike | None, flag: str) -> Path:
    """A file of the folder or up to two levels above, unless it is given; UserError without."""
    if given is not None:
        return Path(given)
    places = (place / name for place in (folder, *folder.resolve().parents[:2]))
    if found := next(filter(Path.is_file, places), None):
        return found
    raise UserError(f"{folder}: no {name} there or up to two levels above; give it with {flag}.")


def read_dataset(path: Path) -> dict[str, Any]:
    """The content of dataset.json; UserError where what is read of it is missing or of another type."""
    decode(_Dataset, content := read_dict(path), path)
    ending = content["file_ending"]
    if not ending.startswith(".") or not is_file_name(ending) or ending == ".npz":
        raise UserError(f"{path} has the file_ending {ending!r}; nnU-Net's is like '.nii.gz'.")
    return content


def read_plans(path: Path) -> dict[str, Any]:
    """The content of plans.json; UserError where what is read of it has another type."""
    decode(_Plans, plans := read_dict(path), path)
    if not is_file_name(name := plans.get("dataset_name", "unnamed")):
        raise UserError(f"{path}: dataset_name is {name!r}, which names no folder; give nnU-Net's own file.")
    return plans


def find_references(dataset_name: str | None, folder: Path) -> Path:
    """nnU-Net's ground truth of a data set, for the predictions in ``folder``; UserError if there is none."""
    if not dataset_name:
        raise UserError(f"plans.json of {folder} names no data set; give the ground-truth folder too.")
    root = os.environ.get("nnUNet_preprocessed") or "nnUNet_preprocessed (not set)"
    if (place := Path(root, dataset_name, "gt_segmentations")).is_dir():
        return place
    raise UserError(f"no ground truth of {dataset_name} for {folder}: there is no {place}; give its folder.")


def splits_of(dataset_name: str | None) -> list[Split]:
    """The splits of splits_final.json by fold; none without it, UserError where it is damaged or names no file."""
    preprocessed = os.environ.get("nnUNet_preprocessed") or os.devnull
    path = Path(preprocessed, dataset_name or os.devnull, "splits_final.json")
    splits = decode(list[Split], read_json(path), path, fix="restore it") if path.is_file() else []
    for case in (case for split in splits for case in (*split["train"], *split["val"])):
        if not is_file_name(case):
            raise UserError(f"{path}: {case!r} cannot be the name of a case; restore it.")
    return splits


def model_folder(dataset: str | int, trainer: str, plans: str, configuration: str) -> Path:
    """nnU-Net's folder of a trained model; UserError if it is not there."""
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    if not os.environ.get("nnUNet_results"):
        raise UserError("the environment variable nnUNet_results is not set; nnU-Net's documentation says what it is.")
    try:
        folder = Path(get_output_folder(dataset, trainer, plans, configuration))
    except (RuntimeError, ValueError, AssertionError) as error:  # unknown or ambiguous data set, in several sentences
        present = some(sorted(path.name for path in Path(os.environ["nnUNet_results"]).glob("Dataset*"))) or "none"
        problem = first_line(error).partition(". ")[0]
        raise UserError(f"data set {dataset!r}: {problem}; nnUNet_results has {present}. Give one of these.") from None
    if not folder.is_dir():
        present = ", ".join(sorted(entry.name for entry in folder.parent.glob("*__*"))) or "none"
        raise UserError(f"{folder}: no such model; there are {present} in {folder.parent}.")
    return folder


def calibrate_command(model: Path, configuration: str) -> str:
    """The command that calibrates a model on its validation cases."""
    trainer, _, rest = model.name.partition("__")
    plans = rest.rpartition("__")[0]
    words = ["nnunet_nacl", "calibrate", "-d", model.resolve().parent.name, "-tr", trainer, "-c", configuration]
    return shlex.join(words + (["-p", plans] if plans not in ("", "nnUNetPlans") else []))


def fold_of(folder: Path) -> str | None:
    """The fold that a folder is named for; None for other names, such as those of copies."""
    name = folder.name.removeprefix("fold_")
    return name if name != folder.name and _FOLD.fullmatch(name) else None


def validated_fold(folder: Path) -> str:
    """The fold whose validation folder this is, by its place; empty for other folders."""
    place = Path(os.path.abspath(folder))
    return (place.name == "validation" and fold_of(place.parent)) or ""


def fold_folders(model: Path) -> dict[str, Path]:
    """The folders of a model's folds by fold, in order; others named like them are left out."""
    return {fold: folder for folder in sorted(model.iterdir()) if (fold := fold_of(folder)) and folder.is_dir()}


def folds_asked_for(folds: Sequence[str | int]) -> tuple[str, ...]:
    """Folds that the user named, without repeats; UserError for what is no fold's name."""
    asked = tuple(dict.fromkeys(map(str, folds)))
    if odd := [fold for fold in asked if not _FOLD.fullmatch(fold)]:
        raise UserError(f"-f {odd[0]}: folds are 0, 1, 2, ... or all (nnU-Net's fold_all).")
    return asked


def folds_with(model: Path, name: str) -> list[str]:
    """A model's folds that have a file or folder of this name, in order; UserError if it is a path."""
    if name in ("", ".", "..") or os.path.basename(name) != name:
        raise UserError(f"-chk {name}: give the name of a file in the folds' folders, such as checkpoint_final.pth.")
    return [fold for fold, folder in fold_folders(model).items() if (folder / name).exists()]


def trained_folds(model: Path, checkpoint: str, folds: Sequence[str | int] | None = None) -> tuple[str, ...]:
    """The folds asked for, else every numbered one with the checkpoint, or fold_all; UserError where one has none."""
    present = folds_with(model, checkpoint)
    chosen = folds_asked_for(folds or [fold for fold in present if fold != "all"] or present)
    if not chosen:
        raise UserError(f"{model} has no fold with a {checkpoint}; finish a training, or name another with -chk.")
    if absent := [fold for fold in chosen if fold not in present]:
        others = f"there are the folds {', '.join(present) or '(none)'}. Train it, or choose others with -f or -chk."
        raise UserError(f"{model / f'fold_{absent[0]}'} has no {checkpoint}; {others}")
    return chosen


def predicted_folder(fold: Path, checkpoint: str) -> Path:
    """Where a fold's checkpoint predicts validation cases to."""
    return fold / f"validation_{checkpoint.removesuffix('.pth')}"


def validation_folder(fold: Path) -> Path:
    """nnU-Net's validation folder, unless only `nnunet_nacl evaluate --predict` has measured this fold."""
    validation, predicted = fold / "validation", predicted_folder(fold, "checkpoint_final.pth")
    return predicted if is_measured(predicted) and not is_measured(validation) else validation


def is_measured(folder: Path) -> bool:
    """Whether predictions can be measured, or were."""
    return any(folder.glob("*.npz")) or bool(recorded_cases(folder))


def records_in(folder: Path) -> Path:
    """Where the records of predictions lie that are measured beside a ground truth: not where a run keeps its own."""
    return folder / ("evaluation_records" if (folder / "prediction.json").is_file() else RECORDS)


def recorded_cases(folder: Path) -> set[str]:
    """Names of the cases of a folder of predictions that have a record there."""
    return {path.stem for path in records_in(folder).glob("*.npz")}


@dataclass(frozen=True)
class PredictionFolder:
    """A folder of nnU-Net predictions, usually with their ground truth, and contents of dataset.json and plans.json.

    ``expected`` are the cases that should lie in it; None if that is not known.
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

        What is not given is looked for: dataset.json and plans.json in the folder and up to two levels above; the
        ground truth, unless it is not needed, in nnUNet_preprocessed.
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
        """The folder with the cases that it should hold: those of a fold's split, or all with ground truth; UserError.

        Of folds beyond splits_final.json, which nnU-Net splits at random, nothing is known.
        """
        if fold != "all":
            splits, number = splits_of(self.plans.get("dataset_name")), int(fold)
            return replace(self, expected=tuple(sorted(splits[number]["val"])) if number < len(splits) else None)
        ending = self.file_ending
        names = list_folder(self.reference_folder)[0] if self.reference_folder else ()
        expected = tuple(sorted(name[: -len(ending)] for name in names if name.endswith(ending)))
        if not expected:
            what = f"no ground truth (*{ending}, as dataset.json says)"
            raise UserError(f"{self.reference_folder} holds {what}; give the right folder.")
        return replace(self, expected=expected)

    @property
    def file_ending(self) -> str:
        """Ending of the segmentation files, such as ``.nii.gz``."""
        return self.dataset_json["file_ending"]

    @property
    def channel_names(self) -> list[str]:
        """Names of the image channels, as far as dataset.json has them."""
        return list(map(str, self.dataset_json.get("modality", self.dataset_json.get("channel_names", {})).values()))

    @property
    def num_channels(self) -> int:
        """Image channels; 0 where dataset.json does not name them."""
        return len(self.channel_names)

    @property
    def settings(self) -> EvaluationSettings:
        """The default for all cases: masks reach 2 mm, or the plans' median voxel in the plane where that is wider."""
        plane = self.plans.get("original_median_spacing_after_transp", [])[-2:]  # nnU-Net's first axis is across slices
        reach = min(max([EvaluationSettings.dilation_mm, *plane]), LARGEST_RADIUS_MM)
        return EvaluationSettings(dilation_mm=reach, boundary_mm=reach)

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
        """nnU-Net's reader and writer, which decides the order and orientation of array axes."""
        return find_reader(self.plans, self.dataset_json, self.folder)

    def cases(self, *, chill: bool = False, recorded: Container[str] = ()) -> tuple[list[str], dict[str, str]]:
        """Names of the cases that can be read, and by name what is wrong with others; UserError without any.

        ``chill``, nnU-Net's word, accepts expected cases without a prediction; ``recorded`` need no probabilities.
        """
        ending = self.file_ending
        files, others = list_folder(self.folder)
        segmentations = {file.removesuffix(ending) for file in files if file.endswith(ending)}
        probabilities = {file.removesuffix(".npz") for file in files if file.endswith(".npz")}
        if not segmentations | probabilities:
            raise UserError(f"{self.folder} holds no predictions (no *{ending}, no *.npz); {RERUN}.")
        found, problems = [], {}
        for case in sorted(segmentations | probabilities):
            reference, npz = self.files(case).get("reference"), self.folder / f"{case}.npz"
            if reference is not None and not reference.is_file():
                problems[case] = f"{reference}: no ground truth of this case; add it or remove the prediction."
            elif self.expected is not None and case not in self.expected:
                problems[case] = f"{npz} is not in the validation split of this fold; remove what others left."
            elif case not in probabilities and case not in recorded:
                fault = "is no file, or a link that leads nowhere" if npz.name in others else "is missing"
                problems[case] = f"{npz} {fault}; {RERUN}."
            else:
                found.append(case)
        if self.expected is not None and not chill:
            for case in sorted(set(self.expected) - segmentations - probabilities):
                problems[case] = f"{self.folder / case}{ending} and .npz are missing; {RERUN}, or pass --chill."
        return found, problems

    def files(self, case: str) -> dict[str, Path | None]:
        """Places of ``segmentation`` (None without), ``probabilities`` and, with ground truth, ``reference``."""
        segmentation = self.folder / f"{case}{self.file_ending}"
        files = {"segmentation": segmentation if segmentation.is_file() else None}
        files["probabilities"] = self.folder / f"{case}.npz"
        return files | ({"reference": self.reference_folder / segmentation.name} if self.reference_folder else {})

    def image(self, case: str) -> Path:
        """A case's first channel where nnUNetv2_predict read it, or in nnU-Net's imagesTr; UserError without."""
        places = [Path(os.environ.get("nnUNet_raw") or "nnUNet_raw", self.plans.get("dataset_name", ""), "imagesTr")]
        with contextlib.suppress(UserError, KeyError, TypeError):  # given a list, or not nnUNetv2_predict's
            places.insert(0, Path(read_dict(self.folder / PREDICT_ARGUMENTS)["list_of_lists_or_source_folder"]))
        files = [place / f"{case}_0000{self.file_ending}" for place in places]
        if file := next(filter(Path.is_file, files), None):
            return file
        raise UserError(f"{files[0]}: no such image; nnUNet_raw should name the folder of nnU-Net's data sets.")

    def load(self, case: str, *, probabilities: bool = True) -> Case:
        """Read a case, with its truth where the folder was opened with one; UserError, which names a file."""
        path, npz, reference = map(self.files(case).get, ("segmentation", "probabilities", "reference"))
        if path is None or npz is None:
            raise UserError(f"{self.folder / case}{self.file_ending} is missing; {RERUN}.")
        segmentation, properties = self.read_labels(path)
        place, shape, source, truth = Geometry.of(properties), segmentation.shape, Probabilities(), None
        if reference is not None:
            truth = self.read_labels(reference, is_truth=True, like=(f"prediction {path}", place, shape))[0]
        if probabilities:
            probs = read_probabilities(npz, self.labels, shape, f"segmentation {path.name}")
            source = SavedProbabilities(probs, self.labels.regions)
        saved = npz if probabilities else None
        return Case(case, self.labels, place, segmentation, source, truth, properties, saved)

    def read_labels(
        self, path: Path, *, is_truth: bool = False, like: tuple[str, Geometry, tuple[int, ...]] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """(*spatial) label map in the smallest type, and nnU-Net's properties; UserError if it does not fit.

        ``like`` is what it belongs to: in words, where that lies, its shape. Only a truth may hold the ignore label.
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
    """The validation folders of a model's folds by fold; None: of every numbered fold that has one, or fold_all.

    UserError where a fold that is asked for has none, or there is none at all.
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
            others = ", ".join(folds_with(model, "validation")) or "none"
            raise UserError(f"{folder}: no such folder (folds there: {others}); train this fold or {RERUN}.")
        result[fold] = PredictionFolder.open(folder).with_expected(fold)
    return result
