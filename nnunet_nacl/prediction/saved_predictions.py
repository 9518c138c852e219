"""A folder of predictions with probabilities as the source of cases."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_nacl.documents.decision_json import DecidedCase, DecidedStructure
from nnunet_nacl.documents.map_file import (
    APPLIED_FILE,
    map_of,
    map_to_json,
    read_record,
    sha256,
    structures_of,
)
from nnunet_nacl.documents.prediction_json import PredictedCases
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import check_folder, to_json_text, write_atomically
from nnunet_nacl.io.case import Case, CaseFiles
from nnunet_nacl.io.companion_files import fold_folders
from nnunet_nacl.io.npz import RERUN
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.io.treatment import decide_case
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.metrics.expected_dice import count_expected
from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.prediction.deliver import Delivery, Source, Written
from nnunet_nacl.review.prediction_output import write_reviewed
from nnunet_nacl.review.reviewed_case import review_case
from nnunet_nacl.runs.ledger import Ledger, sign
from nnunet_nacl.runs.side_by_side import each_case

_ARGUMENTS = "review_args.json"
_NO_NAMES = ("", ".", "..")
_COMPUTATION = 4  # raise it when another segmentation or number comes from the same files


@dataclass(frozen=True)
class SavedPredictions:
    """A folder of predictions, and what becomes of its cases; can be pickled.

    Attributes:
        folder: The predictions; no ground truth is looked for.
        delivery: What becomes of the cases.
        references: Folder with ground truth, for the true Dice of decided segmentations; cases may lack it.
    """

    folder: PredictionFolder
    delivery: Delivery
    references: Path | None = None

    def source(self, *, num_processes: int = 1, need_all_references: bool = False) -> Source:
        """The predictions as cases.

        Args:
            num_processes: Cases at the same time; 1 starts no process.
            need_all_references: A case without ground truth is an error, found before the work begins.

        Raises:
            UserError: The folder cannot be used, or holds no probabilities.
        """
        folder, delivery, labels = self.folder, self.delivery, self.folder.labels
        _check_probabilities(folder.folder)
        cases, unusable = folder.cases()
        for files in [files for files in cases if files.case in _NO_NAMES]:
            why = f"no folder for maps can have the name {files.case!r}; rename the case."
            unusable[files.case] = f"{files.path}: {why}"
        cases = [files for files in cases if files.case not in _NO_NAMES]
        self._check_references(cases, need_all_references)
        place, quality, rule = folder.folder, delivery.quality, delivery.treatment.rule
        record = {"generated_by": "nnunet_nacl review", "predictions": os.path.abspath(place)}
        settings = {
            "computation": _COMPUTATION,
            "labels": [*labels.names, *labels.listed, labels.ignore_label, list(labels.order)],
            "treatment": delivery.treatment.to_json(),
            "maps": list(delivery.maps),
            "save_probabilities": delivery.probabilities,
            "findings": list(delivery.findings),
            "pictures": delivery.pages != "none",
        }
        document: PredictedCases = {
            "predictions": {"folder": os.path.abspath(place)} | map_of(place),
            "dataset": folder.plans.get("dataset_name"),
            "form": "least certain region of each voxel" if labels.regions else "classes",
            "structures": structures_of(labels),
        }
        if quality is not None:
            document["predicted"] = {
                "segmentations": quality.delivered,
                "learned_as_deployed": quality.learned.as_deployed,
                "map_sha256": sha256(quality.path),
            }
        return Source(
            folder,
            cases,
            unusable,
            lambda case, earlier: sign(self._files(case), settings, earlier),
            lambda todo, ledger: each_case(self.write, todo, num_processes),
            places=[place],
            record=(_ARGUMENTS, record),
            origin={"predictions": str(place.resolve())},
            document=document,
            made={
                "Predictions": str(place),
                "Calibrated by": str(delivery.map_path or "no map"),
                "Segmentations": f"decided for the highest expected {rule}" if rule else "as they were predicted",
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
        folder, delivery, treatment = self.folder, self.delivery, self.delivery.treatment
        case = folder.load(files, truth=False)
        try:
            decided, treated = None, treatment.before_decision(case)
            if treatment.beta:
                segmentation, decision = decide_case(treated, treatment.beta, treatment.presence)
                treated = replace(treated, segmentation=segmentation)
                decided = describe_decision(case, treated, self._truth(case), decision.rounds)
            reviewed = review_case(treated, maps=delivery.maps, findings=delivery.findings)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{files.path}: {error}; predict this case again.") from None
        finished, pictures = delivery.draw(folder, reviewed, None, ())
        probs: np.ndarray | Path | None = None
        if delivery.probabilities:
            probs = files.probabilities if treatment.map is None else treated.probabilities.whole()
        written = write_reviewed(folder, reviewed, delivery.output, source=files, probabilities=probs)
        return replace(finished, decided=decided), pictures + written

    def _files(self, files: CaseFiles) -> dict[str, Path | None]:
        read = {"probabilities": files.probabilities, "segmentation": files.segmentation}
        return {**read, "reference": self._reference(files.case)}

    def _reference(self, case: str) -> Path | None:
        path = None if self.references is None else self.references / f"{case}{self.folder.file_ending}"
        return path if path is not None and path.is_file() else None

    def _truth(self, case: Case) -> np.ndarray | None:
        path = self._reference(case.name)
        if path is None:
            return None
        like = "prediction", case.geometry, case.segmentation.shape
        return self.folder.read_labels(path, is_truth=True, like=like)[0]

    def _check_references(self, cases: Sequence[CaseFiles], need_all: bool) -> None:
        if self.references is None:
            return
        check_folder(self.references, "the ground truth")
        missing = [files.case for files in cases if self._reference(files.case) is None]
        if missing and (need_all or len(missing) == len(cases)):
            path = self.references / f"{missing[0]}{self.folder.file_ending}"
            raise UserError(f"{path}: no ground truth for this prediction; add it, or leave the folder out.")

    def _begin(self, names: set[str], ledger: Ledger) -> None:
        """Say by which map the folder is calibrated, and remove what is of other predictions than these."""
        output, folder, treatment = self.delivery.output, self.folder, self.delivery.treatment
        map_path = self.delivery.map_path
        (output / APPLIED_FILE).unlink(missing_ok=True)
        if treatment.map is not None and map_path is not None:
            form = read_record(map_path).form
            record = map_to_json({form: treatment.map}, form, structures_of(folder.labels))
            record |= {
                "applied_to": str(folder.folder.resolve()),
                "map": str(map_path.resolve()),
                "map_sha256": sha256(map_path),
            }
            write_atomically(output / APPLIED_FILE, to_json_text(record))
        elif (folder.folder / APPLIED_FILE).is_file():  # as calibrated as what it is made from
            write_atomically(output / APPLIED_FILE, to_json_text(read_dict(folder.folder / APPLIED_FILE)))
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


def describe_decision(predicted: Case, decided: Case, truth: np.ndarray | None, rounds: int) -> DecidedCase:
    """Compare a case as it was predicted with the same as it was decided.

    Args:
        predicted: Before the decision.
        decided: After it, with the probabilities that it was made by.
        truth: (*spatial) ground-truth label map; None where there is none.
        rounds: Of the iteration.
    """
    labels, probs = predicted.labels, decided.probabilities.whole()
    valid = None if truth is None or labels.ignore_label is None else truth != labels.ignore_label
    both = predicted.segmentation, decided.segmentation
    before, after = (count_expected(probs, segmentation, regions=labels.region_values) for segmentation in both)
    structures = {}
    for i, channel in enumerate(labels.foreground):
        old, new = (labels.mask(segmentation, channel) for segmentation in both)
        dice = [math.nan] * 2
        if truth is not None:
            true = labels.mask(truth, channel)
            dice = [count_overlap(true, mask, valid).dice for mask in (old, new)]
        counts = (int(n) for n in (old.sum(), new.sum(), (new & ~old).sum(), (old & ~new).sum()))
        expected = (float(each[i]) for each in (after.expected, before.dice, after.dice))
        structures[labels.key(channel)] = DecidedStructure(*counts, *expected, *dice)
    n_changed = int(np.count_nonzero(both[0] != both[1]))
    return DecidedCase(predicted.name, structures, n_changed, rounds, truth is not None)
