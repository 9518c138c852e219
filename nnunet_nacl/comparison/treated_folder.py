"""A fold's predictions as if they had been calibrated, decided for Dice, or both: what is measured, and where it goes.

Nothing of it is written but the document: each case is calibrated and decided when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.decision import decide
from nnunet_nacl.cases.case_cache import came_from
from nnunet_nacl.cases.checkpoints import CALIBRATED
from nnunet_nacl.cases.heldout import AFTER_FOLDER, MAPS_FILE, CalibratedFolder
from nnunet_nacl.cases.locate import predicted_folder
from nnunet_nacl.cases.prediction_folder import CaseData, CaseFiles, PredictionFolder
from nnunet_nacl.cases.validation_prediction import check_checkpoint
from nnunet_nacl.documents.document import FILE_NAME, read_document
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import mismatch, read_json

__all__ = ["DecidedFolder", "is_treated", "treated_document", "treated_folder"]

_DECISION = 1  # raise it when a decision changes for the same probabilities
_MAPS = {"*": [[(int, float)]]}


@dataclass(frozen=True)
class DecidedFolder(PredictionFolder):
    """The same predictions with the segmentation that is decided for Dice in place of the saved one.

    Attributes:
        source: The predictions; they may be calibrated when they are read.
    """

    source: PredictionFolder = field(kw_only=True)

    @classmethod
    def of(cls, folder: PredictionFolder) -> DecidedFolder:
        """A view of ``folder``."""
        return cls(**{f.name: getattr(folder, f.name) for f in fields(PredictionFolder)}, source=folder)

    def files(self, case: str) -> CaseFiles:
        """As the folder's own, marked with what is done to them."""
        return self._marked(self.source.files(case))

    def cases(self, **options: Any) -> tuple[list[CaseFiles], dict[str, str]]:
        """As the folder's own, marked with what is done to them."""
        found, problems = self.source.cases(**options)
        return [self._marked(files) for files in found], problems

    def load(self, files: CaseFiles) -> CaseData:
        """Read one case and decide it; UserError as the folder's own, or where these are no probabilities."""
        data, labels = self.source.load(files), self.labels
        order = self.label_manager.regions_class_order if labels.regions else None
        try:
            decision = decide(data.probs, regions=labels.values if labels.regions else None, region_labels=order)
        except ValueError as error:
            raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
        return replace(data, segmentation=decision.segmentation.astype(np.int16))

    def _marked(self, files: CaseFiles) -> CaseFiles:
        derived: dict[str, Any] = {"decision": _DECISION}
        if isinstance(self.source, CalibratedFolder):
            own = self.source.maps[files.case]
            derived["map"] = [own.slopes.tolist(), own.offsets.tolist()]
        return replace(files, derived=derived)


def treated_folder(folder: PredictionFolder, treatment: Sequence[str]) -> PredictionFolder:
    """A fold's validation folder as if ``treatment`` had been done to it, some of ``TREATMENTS``.

    Raises:
        UserError: It shall be calibrated, and `nnunet_nacl calibrate` has not been run on these predictions.
    """
    if place := _predicted(folder.folder, treatment):
        check_checkpoint(place)
        return replace(folder, folder=place)
    if "calibrated" in treatment:
        folder = _calibrated(folder)
    return DecidedFolder.of(folder) if "decided" in treatment else folder


def treated_document(folder: Path, treatment: Sequence[str]) -> Path:
    """Where the document of a fold's validation folder so treated lies: that of `calibrate` is its own."""
    if not treatment:
        return folder / FILE_NAME
    if place := _predicted(folder, treatment):
        return place / FILE_NAME
    return folder.parent / "_".join(("validation", *treatment)) / FILE_NAME


def _predicted(folder: Path, treatment: Sequence[str]) -> Path | None:
    """What the calibrated checkpoint predicted for a fold, if that is all that is known of it after calibration."""
    place = predicted_folder(folder.parent, CALIBRATED)
    known = (folder.parent / AFTER_FOLDER / FILE_NAME).is_file() or not (place / FILE_NAME).is_file()
    return None if known or tuple(treatment) != ("calibrated",) else place


def is_treated(folder: PredictionFolder) -> bool:
    """Whether the saved segmentations are not those that :meth:`PredictionFolder.load` gives."""
    return isinstance(folder, (CalibratedFolder, DecidedFolder))


def _calibrated(folder: PredictionFolder) -> CalibratedFolder:
    """Each case through the map that was fitted without it, which `calibrate` left beside what it measured with it."""
    fold = folder.folder.parent
    place = fold / AFTER_FOLDER
    trainer, plans, configuration = fold.resolve().parent.name.split("__")
    arguments = f" -d {fold.resolve().parent.parent.name} -tr {trainer} -p {plans} -c {configuration}"
    command = f"run `nnunet_nacl calibrate{arguments}`"
    if not ((place / FILE_NAME).is_file() and (place / MAPS_FILE).is_file()):
        raise UserError(
            f"{fold} has no {AFTER_FOLDER}/{FILE_NAME}; {command}, or, where that has only samples to go by (no npz), "
            f"`nnunet_nacl evaluate{arguments} --predict -chk {CALIBRATED}`."
        )
    document, maps = read_document(place / FILE_NAME), read_json(place / MAPS_FILE)
    known, labels = {case.case: case for case in document.cases}, folder.labels
    try:
        if problem := mismatch(maps, _MAPS):
            raise ValueError(problem)
        made = {case: AffineMap(slopes, offsets, labels.regions) for case, (slopes, offsets) in maps.items()}
        result = CalibratedFolder.of(folder, made)
        found, _ = result.cases(known=known)
        stale = [
            files.case
            for files in found
            if files.case not in known or not came_from(known[files.case], files, labels, document.settings)
        ]
    except (TypeError, ValueError) as error:
        raise UserError(f"{place / MAPS_FILE}: not the maps of this package ({error}); {command} again.") from None
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions.") from None
    if stale:
        raise UserError(
            f"{fold}: {len(stale)} predictions, {stale[0]} first, are not those that were calibrated; {command} again."
        )
    return result
