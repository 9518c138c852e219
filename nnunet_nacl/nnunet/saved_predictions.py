"""A folder of predictions with probabilities as the source of cases."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibrate.map_file import (
    APPLIED_FILE,
    map_of,
    sha256,
    structures_of,
)
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.locate import fold_folders
from nnunet_nacl.nnunet.output import write_case
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.review.deliver import Delivery, Source, Written
from nnunet_nacl.review.prediction_json import PredictedCases
from nnunet_nacl.review.reviewed_case import review_case
from nnunet_nacl.runs.ledger import Ledger, sign
from nnunet_nacl.runs.side_by_side import each_case

_ARGUMENTS = "review_args.json"
_NO_NAMES = ("", ".", "..")
_COMPUTATION = 5  # raise it when another segmentation or number comes from the same files


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case."""

    case: str
    probabilities: Any
    segmentation: Any

    @property
    def path(self) -> Path:
        """The largest of them."""
        return self.probabilities


@dataclass(frozen=True)
class SavedPredictions:
    """A folder of predictions, and what becomes of its cases; can be pickled.

    Attributes:
        folder: The predictions; no ground truth is looked for.
        delivery: What becomes of the cases.
    """

    folder: PredictionFolder
    delivery: Delivery

    def source(self, *, num_processes: int = 1) -> Source:
        """The predictions as cases.

        Args:
            num_processes: Cases at the same time; 1 starts no process.

        Raises:
            UserError: The folder cannot be used, or holds no probabilities.
        """
        folder, delivery, labels = self.folder, self.delivery, self.folder.labels
        _check_probabilities(folder.folder)
        names, unusable = folder.cases()
        cases = [CaseFiles(name, *map(folder.files(name).get, ("probabilities", "segmentation"))) for name in names]
        for files in [files for files in cases if files.case in _NO_NAMES]:
            why = f"no folder for maps can have the name {files.case!r}; rename the case."
            unusable[files.case] = f"{files.path}: {why}"
        cases = [files for files in cases if files.case not in _NO_NAMES]
        place, quality = folder.folder, delivery.quality
        record = {"generated_by": "nnunet_nacl review", "predictions": os.path.abspath(place)}
        settings = {
            "computation": _COMPUTATION,
            "labels": [*labels.names, *labels.listed, labels.ignore_label, list(labels.order)],
            "calibration": None if delivery.calibration is None else delivery.calibration.to_json(),
            "maps": list(delivery.maps),
            "save_probabilities": delivery.probabilities,
            "findings": list(delivery.findings),
            "pictures": delivery.aims.pages != "none",
        }
        document: PredictedCases = {
            "predictions": {"folder": os.path.abspath(place)} | map_of(place),
            "dataset": folder.plans.get("dataset_name"),
            "form": "least certain region of each voxel" if labels.regions else "classes",
            "structures": structures_of(labels),
        }
        return Source(
            folder,
            cases,
            unusable,
            lambda case, earlier: sign(_files(case), settings, earlier),
            lambda todo: each_case(self.write, todo, num_processes),
            places=[place],
            record=(_ARGUMENTS, record),
            document=document,
            made={
                "Predictions": str(place),
                "Calibrated by": str(delivery.map_path or "no map"),
                "Segmentations": "as they were predicted",
            },
            notes=lambda finished: [] if quality is None else quality.caveats(finished),
            members=[place.resolve().name],
            begin=partial(self._begin, {files.case for files in cases}),
        )

    def write(self, files: CaseFiles) -> Written:
        """Do one case and write all of it.

        Raises:
            UserError: A file cannot be read, does not fit or cannot be written; the message names it.
        """
        folder, delivery = self.folder, self.delivery
        case = folder.load(files.case).through(delivery.calibration)
        try:
            reviewed = review_case(case, maps=delivery.maps, findings=delivery.findings)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{files.path}: {error}; predict this case again.") from None
        finished, pictures = delivery.draw(folder, reviewed, None, ())
        probs: np.ndarray | Path | None = None
        if delivery.probabilities:
            probs = files.probabilities if delivery.calibration is None else case.probabilities.whole()
        written = write_case(
            folder, reviewed.case, delivery.output, maps=reviewed.maps, saved=files.probabilities, probabilities=probs
        )
        return finished, pictures + written

    def _begin(self, names: set[str], ledger: Ledger) -> None:
        """Say by which map the folder is calibrated, and remove what is of other predictions than these."""
        output, folder, calibration = self.delivery.output, self.folder, self.delivery.calibration
        map_path = self.delivery.map_path
        (output / APPLIED_FILE).unlink(missing_ok=True)  # which a run wrote, or open_output would have refused it
        if calibration is not None and map_path is not None:
            record = {
                "generated_by": "nnunet_nacl review",
                "applied_to": str(folder.folder.resolve()),
                "map": str(map_path.resolve()),
                "map_sha256": sha256(map_path),
            }
            write_atomically(output / APPLIED_FILE, to_json_text(record))
        elif (folder.folder / APPLIED_FILE).is_file():  # as calibrated as what it is made from
            record = read_dict(folder.folder / APPLIED_FILE) | {"generated_by": "nnunet_nacl review"}
            write_atomically(output / APPLIED_FILE, to_json_text(record))
        for case in sorted(ledger.cases - names):  # nothing of them may lie beside the new ones
            for path in ledger.written(case, output).values():
                path.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # other files are there
                    path.parent.rmdir()
            ledger.forget(case)


def _check_probabilities(folder: Path) -> None:
    """UserError for a folder without a single npz: one line instead of one for each case."""
    if next(folder.glob("*.npz"), None) is not None:
        return
    for validation in (folder / "validation", *(fold / "validation" for fold in fold_folders(folder).values())):
        if next(validation.glob("*.npz"), None) is not None:
            raise UserError(f"{folder} holds no predictions, but {validation} does: give that.")
    raise UserError(f"{folder} holds no probabilities (*.npz); {RERUN}.")


def _files(files: CaseFiles) -> dict[str, Path | None]:
    return {"probabilities": files.probabilities, "segmentation": files.segmentation}
