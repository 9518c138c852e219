"""Reads what nnU-Net wrote: the only place that opens npz, segmentation, dataset.json and plans.json files.

nnU-Net's own reader classes and label manager do the reading, so every file ending, orientation and label definition
that nnU-Net takes is taken here.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.evaluation.geometry import geometry_difference
from nnunet_nacl.evaluation.json_files import first_line, read_dict
from nnunet_nacl.evaluation.npz import read_array
from nnunet_nacl.evaluation.quiet import quiet

__all__ = ["RERUN", "CaseData", "CaseFiles", "Labels", "Prediction", "PredictionFolder"]

RERUN = "rerun the validation with `nnUNetv2_train ... --val --npz` or the prediction with --save_probabilities"


@dataclass(frozen=True)
class Labels:
    """The structures of a data set in the order of the probability channels.

    Attributes:
        names: Name of each channel; for classes the first is the background.
        values: Label value of each class, or the tuple of label values of each region.
        regions: Whether the channels are sigmoid regions.
        ignore_label: Label of voxels without ground truth, or None.
        known: All label values that may occur in the ground truth, the ignore label apart.
    """

    names: tuple[str, ...]
    values: tuple[int | tuple[int, ...], ...]
    regions: bool
    ignore_label: int | None
    known: tuple[int, ...]

    @property
    def foreground(self) -> tuple[int, ...]:
        """Indices of the channels that are structures."""
        return tuple(range(0 if self.regions else 1, len(self.values)))

    def key(self, channel: int) -> str:
        """The name that nnU-Net's summary.json gives to a structure: ``"1"`` or ``"(1, 2)"``."""
        return str(self.values[channel])

    def mask(self, segmentation: np.ndarray, channel: int) -> np.ndarray:
        """Voxels of a structure in a label map."""
        value = self.values[channel]
        if isinstance(value, tuple):
            return np.isin(segmentation, value)
        return segmentation == value


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case.

    ``segmentation`` may be None, then it follows from the probabilities; ``reference`` is None where the folder was
    opened without ground truth.
    """

    case: str
    probabilities: Path
    reference: Path | None
    segmentation: Path | None


@dataclass(frozen=True)
class CaseData:
    """One case in memory, all arrays in nnU-Net's array axis order.

    Attributes:
        probs: (K, *spatial) class or (R, *spatial) region probabilities.
        truth: (*spatial) ground-truth label map, ignored voxels still marked.
        segmentation: (*spatial) predicted label map, as saved.
        spacing_mm: Voxel spacing in the order of the axes.
    """

    probs: np.ndarray
    truth: np.ndarray
    segmentation: np.ndarray
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one case, without ground truth; all arrays in nnU-Net's array axis order.

    Attributes:
        probs: (K, *spatial) class or (R, *spatial) region probabilities.
        segmentation: (*spatial) predicted label map, as saved.
        properties: Where the image lies, as nnU-Net's reader returned it for the segmentation file.
    """

    probs: np.ndarray
    segmentation: np.ndarray
    properties: dict[str, Any]


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
    expected: tuple[str, ...] | None = field(default=None)

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike,
        reference_folder: str | os.PathLike | None = None,
        *,
        dataset_json: str | os.PathLike | None = None,
        plans: str | os.PathLike | None = None,
        expected: Sequence[str] | None = None,
        need_reference: bool = True,
    ) -> PredictionFolder:
        """Find what belongs to a folder of predictions.

        Args:
            folder: The predictions.
            reference_folder: Ground truth; None takes nnU-Net's own copy in nnUNet_preprocessed, else nnUNet_raw.
            dataset_json: Path of dataset.json; None looks in ``folder`` and up to two levels above.
            plans: Path of plans.json; None looks there too.
            expected: Cases that should be there.
            need_reference: Without it no ground truth is looked for, and only ``load_prediction`` can read the cases.

        Raises:
            UserError: A folder or file is missing or unreadable.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; give the folder that holds the predictions.")
        dataset = read_dict(_find_above(folder, "dataset.json", dataset_json, "-djfile"))
        plan = read_dict(_find_above(folder, "plans.json", plans, "-pfile"))
        for key, kind in (("labels", dict), ("file_ending", str)):
            if not isinstance(dataset.get(key), kind):
                raise UserError(f"dataset.json of {folder} has no {key!r}; give nnU-Net's own file.")
        if reference_folder is None and need_reference:
            reference_folder = _find_references(plan.get("dataset_name"), folder)
        reference_folder = None if reference_folder is None else Path(reference_folder)
        if reference_folder is not None and not reference_folder.is_dir():
            raise UserError(f"{reference_folder}: no such folder; give the folder that holds the ground truth.")
        result = cls(folder, reference_folder, dataset, plan, None if expected is None else tuple(sorted(expected)))
        result.labels  # noqa: B018  (a bad label definition is an error of the folder, not of every case)
        return result

    @property
    def file_ending(self) -> str:
        """Ending of the segmentation files, such as ``.nii.gz``."""
        return self.dataset_json["file_ending"]

    @cached_property
    def labels(self) -> Labels:
        """The structures, through nnU-Net's label manager."""
        manager = self.label_manager
        if manager.has_regions:
            values = tuple(
                tuple(int(v) for v in r) if isinstance(r, (tuple, list)) else int(r) for r in manager.foreground_regions
            )
        else:
            values = tuple(int(v) for v in manager.all_labels)
            if values != tuple(range(len(values))):
                raise UserError(f"dataset.json of {self.folder}: labels must be 0, 1, 2, ..., got {values}.")
        by_value = {
            tuple(int(v) for v in value) if isinstance(value, (tuple, list)) else int(value): name
            for name, value in self.dataset_json["labels"].items()
        }
        names = tuple(by_value.get(value, str(value)) for value in values)
        known = tuple(int(v) for v in manager.all_labels)
        return Labels(names, values, bool(manager.has_regions), manager.ignore_label, known)

    @cached_property
    def label_manager(self) -> Any:
        """nnU-Net's label manager of this data set."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        try:
            with quiet():
                return PlansManager(self.plans).get_label_manager(self.dataset_json)
        except Exception as error:  # nnU-Net raises anything from KeyError to AssertionError here
            raise UserError(
                f"dataset.json or plans.json of {self.folder} is not nnU-Net's: {first_line(error)}"
            ) from error

    def cases(self, *, chill: bool = False, known: Container[str] = ()) -> tuple[list[CaseFiles], dict[str, str]]:
        """The cases that can be read, and what is wrong with the others.

        Args:
            chill: Do not report expected cases that have no prediction (nnU-Net's word for it).
            known: Cases that need no probabilities, because their sums are known.

        Returns:
            Files of the complete cases in alphabetic order, and problems by case name.

        Raises:
            UserError: There is no prediction at all.
        """
        ending = self.file_ending
        names, others = _list_folder(self.folder)
        segmentations = {name[: -len(ending)] for name in names if name.endswith(ending)}
        probabilities = {name[:-4] for name in names if name.endswith(".npz")}
        if not segmentations | probabilities:
            raise UserError(f"{self.folder} holds no predictions (no *{ending}, no *.npz); {RERUN}.")
        found, problems = [], {}
        for case in sorted(segmentations | probabilities):
            reference = self.files(case).reference
            if reference is not None and not reference.is_file():
                problems[case] = f"{reference}: no ground truth for this prediction; add it or remove the prediction."
            elif self.is_fold and self.expected is not None and case not in self.expected:
                problems[case] = (
                    f"{self.folder / case}.npz is not in the validation split of this fold; remove it if it is left "
                    "over from another split."
                )
            elif case not in probabilities and case not in known:
                odd = f"{case}.npz" in others
                what = "is no file, or a link that leads nowhere" if odd else "is missing"
                problems[case] = f"{self.folder / case}.npz {what}; {RERUN}."
            else:
                found.append(self.files(case))
        if self.expected is not None and not chill:
            for case in sorted(set(self.expected) - segmentations - probabilities):
                problems[case] = f"{self.folder / case}{ending} and .npz are missing; {RERUN}, or pass --chill."
        return found, problems

    def files(self, case: str) -> CaseFiles:
        """Where the files of a case lie; of these only the segmentation is known to exist, if it is not None."""
        segmentation = self.folder / f"{case}{self.file_ending}"
        reference = None if self.reference_folder is None else self.reference_folder / segmentation.name
        return CaseFiles(
            case, self.folder / f"{case}.npz", reference, segmentation if segmentation.is_file() else None
        )

    def expecting_all_references(self) -> PredictionFolder:
        """The same folder, with every case of the ground truth expected; UserError if there is no ground truth."""
        ending = self.file_ending
        names, _ = _list_folder(self.reference_folder)
        expected = tuple(sorted(name[: -len(ending)] for name in names if name.endswith(ending)))
        if not expected:
            raise UserError(f"{self.reference_folder} holds no ground truth (no *{ending}); give the right folder.")
        return replace(self, expected=expected)

    @property
    def is_fold(self) -> bool:
        """Whether this is the validation folder of a fold."""
        return self.folder.name == "validation" and self.folder.parent.name.startswith("fold_")

    @cached_property
    def _reader(self) -> Any:
        from nnunetv2.imageio.reader_writer_registry import (
            determine_reader_writer_from_dataset_json,
            recursive_find_reader_writer_by_name,
        )

        with quiet():
            try:  # nnU-Net's validation uses the plans' reader, so that DSC agrees with its summary.json
                return recursive_find_reader_writer_by_name(self.plans["image_reader_writer"])()
            except (KeyError, RuntimeError):
                pass
            try:
                return determine_reader_writer_from_dataset_json(self.dataset_json, verbose=False)()
            except RuntimeError as error:
                raise UserError(
                    f"No reader of nnU-Net takes {self.file_ending!r} files: {first_line(error)}"
                ) from None

    def load(self, files: CaseFiles, probs: np.ndarray | None = None) -> CaseData:
        """Read one case.

        Args:
            files: Its files.
            probs: Its probabilities, where they are in memory already; None reads them.

        Raises:
            UserError: A file cannot be read or does not fit the others; the message names it.
        """
        truth, truth_properties = self._read_segmentation(files.reference)
        self._check_labels(truth, files.reference, "ground truth")
        segmentation = None
        if files.segmentation is not None:
            segmentation, properties = self._read_segmentation(files.segmentation)
            difference = geometry_difference(truth_properties, properties, truth.shape, segmentation.shape)
            if difference:
                raise UserError(
                    f"{files.reference}: other geometry than the prediction {files.segmentation} ({difference}); "
                    "resample one of them or give the matching ground truth."
                )
            self._check_labels(segmentation, files.segmentation, "prediction")
        if probs is None:
            probs = read_array(files.probabilities, "probabilities", hint=RERUN)
        probs = self._checked(probs, files.probabilities, truth.shape, f"ground truth {files.reference.name}")
        if segmentation is None:
            segmentation = np.asarray(self.label_manager.convert_probabilities_to_segmentation(probs))
        spacing = tuple(float(value) for value in truth_properties["spacing"])
        return CaseData(probs, _small(truth), _small(segmentation), spacing)

    def load_prediction(self, files: CaseFiles) -> Prediction:
        """Read what was predicted for one case; the ground truth, if there is any, is not opened.

        Raises:
            UserError: A file is missing, cannot be read or does not fit the other; the message names it.
        """
        if files.segmentation is None:
            raise UserError(
                f"{self.folder / files.case}{self.file_ending} is missing, and with it where the image lies; {RERUN}."
            )
        segmentation, properties = self._read_segmentation(files.segmentation)
        self._check_labels(segmentation, files.segmentation, "prediction")
        probs = read_array(files.probabilities, "probabilities", hint=RERUN)
        probs = self._checked(probs, files.probabilities, segmentation.shape, f"segmentation {files.segmentation.name}")
        return Prediction(probs, _small(segmentation), properties)

    @property
    def reader_name(self) -> str:
        """Class of nnU-Net that reads the images: it decides the order and orientation of array axes."""
        return type(self._reader).__name__

    def _checked(self, probs: np.ndarray, path: Path, spatial: tuple[int, ...], beside: str) -> np.ndarray:
        expected = (len(self.labels.values), *spatial)
        if probs.shape != expected:
            what = "regions" if self.labels.regions else "classes"
            raise UserError(
                f"{path}: probabilities of shape {probs.shape}, but {expected[0]} {what} of "
                f"dataset.json and the {beside} ask for {expected}; {RERUN}."
            )
        if probs.dtype.kind != "f":
            raise UserError(f"{path}: probabilities must be floating point, got {probs.dtype}; {RERUN}.")
        if probs.dtype not in (np.float16, np.float32, np.float64) or not probs.dtype.isnative:
            probs = probs.astype(np.float64)
        return probs

    def _read_segmentation(self, path: Path) -> tuple[np.ndarray, dict]:
        try:
            with quiet():
                array, properties = self._reader.read_seg(str(path))
        except Exception as error:  # the readers raise whatever their libraries do
            raise UserError(f"{path}: cannot be read as a segmentation ({first_line(error)}); restore it.") from error
        return array[0], properties

    def _check_labels(self, array: np.ndarray, path: Path, what: str) -> None:
        values = np.unique(array)
        allowed = set(self.labels.known)
        if self.labels.ignore_label is not None and what == "ground truth":
            allowed.add(self.labels.ignore_label)
        unknown = [f"{value:.9g}" for value in values.tolist() if value not in allowed]
        if unknown:
            shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
            raise UserError(
                f"{path}: the {what} holds the label {shown}, which dataset.json does not have "
                f"({', '.join(str(v) for v in sorted(allowed))}); correct the file or dataset.json."
            )


def _list_folder(folder: Path) -> tuple[list[str], set[str]]:
    """Names of the files in a folder, and those of everything else: folders, links that lead nowhere or in circles."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); change its permissions.") from None
    files = [name for name in names if os.path.isfile(folder / name)]
    return files, set(names).difference(files)


def _small(segmentation: np.ndarray) -> np.ndarray:
    return segmentation.astype(np.int16)


def _find_above(folder: Path, name: str, given: str | os.PathLike | None, flag: str) -> Path:
    if given is not None:
        return Path(given)
    resolved = folder.resolve()
    for candidate in (folder, resolved.parent, resolved.parent.parent):
        if (candidate / name).is_file():
            return candidate / name
    raise UserError(f"{folder}: no {name} there or up to two levels above; give it with {flag}.")


def _find_references(dataset_name: str | None, folder: Path) -> Path:
    if not dataset_name:
        raise UserError(f"plans.json of {folder} names no data set; give the ground-truth folder too.")
    looked = []
    for variable, sub in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr")):
        root = os.environ.get(variable)
        if not root:
            looked.append(f"{variable} (not set)")
            continue
        candidate = Path(root) / dataset_name / sub
        if candidate.is_dir():
            return candidate
        looked.append(str(candidate))
    raise UserError(f"no ground truth of {dataset_name} for {folder}: looked in {' and '.join(looked)}.")
