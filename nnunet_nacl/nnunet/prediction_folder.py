"""`PredictionFolder`: predictions as nnU-Net leaves them, as a source of cases with their truth."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from nnunet_nacl.cases.case import (
    Case,
    Labels,
)
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.probabilities import SavedProbabilities
from nnunet_nacl.cases.record import CaseRecord, find_record
from nnunet_nacl.nnunet import folders
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.nnunet.image_files import RERUN, read_probabilities
from nnunet_nacl.nnunet.pipeline import side_by_side
from nnunet_nacl.nnunet.records import Outcomes, Source, Work
from nnunet_nacl.nnunet.tuned import check_tuned
from nnunet_nacl.utilities.errors import UserError, one_line
from nnunet_nacl.utilities.files import check_folder, checksum, is_file_name
from nnunet_nacl.utilities.images import check_name
from nnunet_nacl.utilities.json_files import read_dict


@dataclass(frozen=True)
class PredictionFolder(Source):
    """A folder of nnU-Net predictions, usually with their ground truth.

    Attributes:
        folder: Where they lie.
        reference_folder: Of the ground truth; None without.
        dataset: Its labels, files and reader.
        expected: The cases that should lie there; None if that is not known.
    """

    folder: Path
    reference_folder: Path | None
    dataset: Dataset
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
        need_probabilities: bool = False,
    ) -> PredictionFolder:
        """Find what belongs to a folder of predictions.

        Args:
            folder: Of the predictions.
            reference_folder: Of the ground truth; None looks for it in nnUNet_preprocessed.
            dataset_json: File; None looks in the folder and up to two levels above.
            plans: File; None looks there, too.
            need_reference: Whether the ground truth is looked for.
            need_probabilities: Whether a folder without probabilities, or records of them, is
                refused, before anything else is looked for.

        Raises:
            UserError: A folder or file is missing or unreadable.
        """
        folder = Path(folder)
        check_folder(folder, "the predictions")
        check_name(folder)
        if need_probabilities and not folders.can_be_measured(folder):
            raise UserError(f"{folder} holds no probabilities (*.npz); {RERUN}.")
        dataset = Dataset.open(folder, dataset_json, plans)
        references = None
        if reference_folder is not None:
            references = Path(reference_folder)
        elif need_reference:
            references = folders.find_references(dataset.name, folder)
        if references is not None:
            check_folder(references, "the ground truth")
        # a bad label definition is an error of the folder, not of every case
        dataset.labels  # noqa: B018
        return cls(folder, references, dataset)

    def with_expected(self, fold: str = "all") -> PredictionFolder:
        """The folder with the cases that it should hold: of a fold's split, or all with a truth.

        Of folds beyond splits_final.json, which nnU-Net splits at random, nothing is known.
        UserError where there is no ground truth, or the splits are damaged.
        """
        if fold != "all":
            splits = folders.splits_of(self.dataset.name)
            if int(fold) >= len(splits):
                return replace(self, expected=None)
            return replace(self, expected=tuple(sorted(splits[int(fold)]["val"])))
        names = self._references
        if not names:
            what = f"no ground truth (*{self.dataset.file_ending}, as dataset.json says)"
            raise UserError(f"{self.reference_folder} holds {what}; give the right folder.")
        return replace(self, expected=names)

    @property
    def _references(self) -> tuple[str, ...]:
        """Names of the cases that have a ground truth."""
        if self.reference_folder is None:
            return ()
        ending = self.dataset.file_ending
        names = folders.list_folder(self.reference_folder)
        return tuple(name.removesuffix(ending) for name in names if name.endswith(ending))

    @property
    def records(self) -> Path:
        """Where the records of its cases lie."""
        return folders.records_in(self.folder)

    @property
    def labels(self) -> Labels:  # type: ignore[override]
        """The structures."""
        return self.dataset.labels

    @property
    def is_empty(self) -> bool:
        """Whether neither a segmentation nor probabilities lie here."""
        return not any(
            name.endswith((self.dataset.file_ending, ".npz"))
            for name in folders.list_folder(self.folder)
        )

    @cached_property
    def _problem_of_case(self) -> dict[str, str]:
        """Every case that has a segmentation or probabilities here, and what is wrong with it.

        UserError where there is none.
        """
        cases = set[str]()
        for name in folders.list_folder(self.folder):
            for ending in (self.dataset.file_ending, ".npz"):
                if name.endswith(ending):
                    cases.add(name.removesuffix(ending))
        if not cases:
            raise UserError(
                f"{self.folder} holds no predictions (no *{self.dataset.file_ending}, no *.npz);"
                f" {RERUN}."
            )
        return {case: self._find_problem(case) for case in sorted(cases)}

    def _find_problem(self, case: str) -> str:
        """What is wrong with a case, before its files are opened; empty where nothing is."""
        npz = self.path(case)
        reference = self.files(case).get("reference")
        if not is_file_name(case):
            return f"{npz}: no folder can have the name {case!r}; rename the case."
        if reference is not None and not reference.is_file():
            return f"{reference}: no ground truth of this case; add it, or move the case away."
        if self.expected is not None and case not in self.expected:
            return f"{npz} is not in the validation split of this fold; move it away."
        return ""

    @property
    def names(self) -> list[str]:  # type: ignore[override]
        """Cases that there are, in order; UserError without any."""
        return [case for case, problem in self._problem_of_case.items() if not problem]

    @property
    def problems(self) -> dict[str, str]:  # type: ignore[override]
        """By name, what is wrong with other cases."""
        return {
            case: one_line(problem) for case, problem in self._problem_of_case.items() if problem
        }

    @property
    def missing(self) -> dict[str, str]:
        """By name, that an expected case has no prediction."""
        absent = sorted(set(self.expected or ()) - self._problem_of_case.keys())
        return {
            case: f"{self.folder / case}{self.dataset.file_ending} and .npz are missing; {RERUN}."
            for case in absent
        }

    def path(self, name: str) -> Path:
        """The probabilities."""
        return self.folder / f"{name}.npz"

    def files(self, name: str) -> dict[str, Path | None]:
        """``segmentation`` (None without), ``probabilities`` and, with a truth, ``reference``."""
        segmentation = self.folder / f"{name}{self.dataset.file_ending}"
        files: dict[str, Path | None] = {"segmentation": None, "probabilities": self.path(name)}
        if segmentation.is_file():
            files["segmentation"] = segmentation
        if self.reference_folder is not None:
            files["reference"] = self.reference_folder / segmentation.name
        return files

    def each(self, names: Sequence[str], work: Work, jobs: int) -> Outcomes:
        """Each case's record, or why there is none, as they are finished."""
        return side_by_side(partial(_record, self, work), names, jobs, self.path)

    def image(self, case: str) -> Path:
        """A case's first channel: where nnUNetv2_predict read it, or in nnU-Net's imagesTr.

        Raises:
            UserError: It lies in neither.
        """
        raw = os.environ.get("nnUNet_raw") or "nnUNet_raw"
        image_folders = [Path(raw, self.dataset.name or "", "imagesTr")]
        # predictions are another program's, or it was given a list: nothing is lost by it
        with contextlib.suppress(UserError, KeyError, TypeError):
            arguments = read_dict(self.folder / folders.PREDICT_ARGUMENTS)
            image_folders.insert(0, Path(arguments["list_of_lists_or_source_folder"]))
        files = [folder / f"{case}_0000{self.dataset.file_ending}" for folder in image_folders]
        for file in files:
            if file.is_file():
                return file
        raise UserError(
            f"{files[0]}: no such image; nnUNet_raw should name the folder of nnU-Net's data sets."
        )

    def case(self, name: str, *, probabilities: bool = True) -> Case:
        """Read a case, with its truth where the folder was opened with one.

        Args:
            name: Of the case.
            probabilities: Whether they are read, too.

        Raises:
            UserError: A file is missing, or cannot be used.
        """
        files = self.files(name)
        path = files["segmentation"]
        if path is None:
            raise UserError(f"{self.folder / name}{self.dataset.file_ending} is missing; {RERUN}.")
        segmentation, properties = self.dataset.read_labels(path)
        geometry = Geometry.of(properties)
        truth = None
        reference = files.get("reference")
        if reference is not None:
            like = (f"prediction {path}", geometry, segmentation.shape)
            truth, _ = self.dataset.read_labels(reference, is_truth=True, like=like)
        images: tuple[Path, ...] = ()
        with contextlib.suppress(UserError):  # the case has no picture, and its page says so
            images = (self.image(name),)
        case = Case(
            name,
            self.labels,
            geometry,
            segmentation,
            truth=truth,
            properties=properties,
            images=images,
        )
        if not probabilities:
            return case
        saved = self.path(name)
        probs = read_probabilities(
            saved, self.labels, segmentation.shape, f"segmentation {path.name}"
        )
        source = SavedProbabilities(probs, self.labels.regions)
        return replace(case, probabilities=source, saved=saved)


def _record(folder: PredictionFolder, work: Work, name: str, nothing: None) -> CaseRecord:
    try:
        return work.make_record(folder.case(name))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{folder.path(name)}: {error}; predict this case again.") from None


def _check_predicted_by(folder: PredictionFolder, checkpoint: Path) -> None:
    """UserError where a record says that another network made its prediction than is there now, as
    before it was tuned again."""
    if not checkpoint.is_file():  # a model that was passed on without it
        return
    digest = checksum(checkpoint)
    for path in sorted(folder.records.glob("*.npz")):
        record = find_record(folder.records, path.stem)
        if record is not None and record.made_by.get("checkpoint", digest) != digest:
            raise UserError(
                f"{folder.folder}: {record.name} was predicted by another network than"
                f" {checkpoint}; predict again with `nnunet_nacl evaluate ... --predict` or"
                " `nnunet_nacl calibrate`, and name it with [[checkpoint]]."
            )


def find_fold_folders(
    model: Path, folds: Sequence[str | int] | None = None, checkpoint: str = folders.FINAL
) -> dict[str, PredictionFolder]:
    """The validation folders of a model's folds by fold.

    Args:
        model: Its folder.
        folds: None: every numbered one that has such a folder, or fold_all.
        checkpoint: The network in each fold whose validation is meant.

    Raises:
        UserError: A fold that is asked for has none, or there is none at all; or another network
            than the checkpoint made what lies there.
    """
    validation_folder = partial(folders.validation_folder, checkpoint=checkpoint)
    what = "validation folder"
    if checkpoint != folders.FINAL:
        what = f"validation folder of {checkpoint} (`nnunet_nacl evaluate ... --predict` makes it)"
    chosen = folders.choose_folds(model, lambda fold: validation_folder(fold).is_dir(), what, folds)
    opened = {}
    for fold in chosen:
        opened[fold] = PredictionFolder.open(validation_folder(model / f"fold_{fold}"))
    if checkpoint != folders.FINAL:
        check_tuned(model, checkpoint, [model / f"fold_{fold}" for fold in chosen])
        for fold, folder in opened.items():
            _check_predicted_by(folder, model / f"fold_{fold}" / checkpoint)
    return {fold: folder.with_expected(fold) for fold, folder in opened.items()}
