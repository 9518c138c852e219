"""`review`: lists the cases to check from saved predictions; and reads back what readers made of a
list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from nnunet_nacl.calibration.calibrator import Calibrator
from nnunet_nacl.calibration.map_file import APPLIED_FILE, read_applied_map_digest
from nnunet_nacl.nnunet.image_files import RERUN
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.trust import trusting
from nnunet_nacl.settings import BadSpec, ListSettings, Output, settings_of
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import check_ours, checksum, to_json_text, write_atomically
from nnunet_nacl.utilities.json_files import encode, read_dict
from nnunet_nacl.utilities.rendering import write_page
from nnunet_nacl.worklist.aims import read_aims
from nnunet_nacl.worklist.deliver import DeliveredScans, deliver
from nnunet_nacl.worklist.list_files import OUTCOME, OUTCOME_PAGE
from nnunet_nacl.worklist.outcome.document import Outcome
from nnunet_nacl.worklist.outcome.outcome import read_outcome
from nnunet_nacl.worklist.outcome.text import outcome_page
from nnunet_nacl.worklist.run import Run


def review(
    predictions: str | PathLike,
    output: str | PathLike,
    *,
    calibration_map: str | PathLike | None = None,
    bad: BadSpec | None = None,
    structures: Sequence[str] | None = None,
    find: float | None = None,
    miss: float | None = None,
    also: int = 0,
    pages: str = "flagged",
    maps: Sequence[str] | None = None,
    recall: float | None = None,
    findings: Sequence[str] | None = None,
    slicer: bool = False,
    save_probabilities: bool = False,
    dataset_json: str | PathLike | None = None,
    plans_json: str | PathLike | None = None,
    overwrite: bool = False,
    num_processes: int = 1,
    command: str = "",
    trust_checkpoint: bool = False,
) -> DeliveredScans:
    """List the cases to look at first, from predictions that were saved with their probabilities.

    The output gets the segmentations, with index.html, its tables and prediction.json beside them,
    as from :func:`nnunet_nacl.predict`. A case that cannot be done costs only itself; one that is
    finished is not done again. Nothing is printed; a progress bar goes to stderr. What came of a
    list :func:`read_back` reads.

    Args:
        predictions: Folder of segmentations with their probabilities (npz), as nnU-Net saves them.
        output, overwrite, num_processes, command: The folder to write to, not inside a folder of
            predictions, and how, see :class:`~nnunet_nacl.settings.Output`.
        calibration_map: calibration_map.json of the networks that predicted, which calibrates the
            probabilities and predicts Dice and volumes; None: they stay as they are, and nothing is
            known of Dice.
        bad, structures, find, miss, also, pages, maps, recall, findings, slicer,
            save_probabilities: What is asked of the list, see
            :class:`~nnunet_nacl.settings.ListSettings`.
        dataset_json: dataset.json of the predictions; None: in their folder or up to two levels
            above.
        plans_json: plans.json, likewise.
        trust_checkpoint: Call what plans.json names, which can run code.

    Returns:
        The list, and which cases failed.

    Raises:
        UserError: What was given does not fit or cannot be read, or not a single case could be
            done.

    Examples:
        >>> result = review(predictions, "reviewed", maps=["entropy"])
        >>> result.scans.why.tolist()[:1]  # without a map no case is flagged by its predicted Dice
        ['']
        >>> sorted(path.name for path in (result.output / "maps" / "case_0").iterdir())
        ['case_0_entropy.nii.gz']
    """
    arguments = locals()
    wanted = settings_of(ListSettings, arguments)
    writing = settings_of(Output, arguments)
    with trusting(trust_checkpoint):
        folder = PredictionFolder.open(
            predictions,
            dataset_json=dataset_json,
            plans=plans_json,
            need_reference=False,
            need_probabilities=True,
        )
        return review_folder(folder, wanted, writing, calibration_map)


def review_folder(
    folder: PredictionFolder,
    wanted: ListSettings,
    writing: Output,
    calibration_map: str | PathLike | None,
) -> DeliveredScans:
    """The recipe of :func:`review`, of an opened folder and with its settings collected."""
    if calibration_map is None:
        calibrator = Calibrator(missing=("give the map that predicts it, [[calibration_map]].",))
    else:
        calibrator = Calibrator.of_folder(Path(calibration_map), folder)
    aims = read_aims(wanted, folder.labels, calibrator, None)
    place = os.path.abspath(folder.folder)
    made_by = {"generated_by": "nnunet_nacl review"}
    run = Run(
        dataset=folder.dataset,
        calibrator=calibrator,
        aims=aims,
        writing=writing,
        source=folder.folder,
        claim=("review_args.json", made_by | {"predictions": place}),
        document=_describe_predictions(folder, calibrator),
        notes=calibrator.notes,
        applied=_applied_map(folder.folder, calibrator),
    )
    return deliver(folder, run, title="measuring")


def _describe_predictions(folder: PredictionFolder, calibrator: Calibrator) -> dict[str, Any]:
    """What prediction.json says of predictions and map; UserError where they have no
    probabilities."""
    if next(folder.folder.glob("*.npz"), None) is None:
        raise UserError(f"{folder.folder} holds no probabilities (*.npz); {RERUN}.")
    predictions = {"folder": os.path.abspath(folder.folder)}
    digest = read_applied_map_digest(folder.folder)
    if digest is not None:
        predictions["map_sha256"] = digest
    return {
        "predictions": predictions,
        "dataset": folder.dataset.name,
        "form": "least certain region of each voxel" if folder.labels.regions else "classes",
        "structures": folder.labels.structures,
        "calibration_map": calibrator.used_map(),
    }


def _applied_map(folder: Path, calibrator: Calibrator) -> dict[str, Any]:
    """By which map the output is calibrated, and what from; empty where it is not."""
    applied: dict[str, Any] = {}
    if (folder / APPLIED_FILE).is_file():  # as calibrated as what it is made from
        applied = read_dict(folder / APPLIED_FILE)
    elif calibrator.path is not None:
        applied = {
            "applied_to": str(folder.resolve()),
            "map": str(calibrator.path.resolve()),
            "map_sha256": checksum(calibrator.path),
        }
    return applied | {"generated_by": "nnunet_nacl review"} if applied else {}


@dataclass(frozen=True)
class OutcomeFiles:
    """What :meth:`ReadBack.write` has written.

    Attributes:
        document: outcome.json.
        page: outcome.html; None where it could not be made.
        why_no_page: Why not; None where it was.
    """

    document: Path
    page: Path | None
    why_no_page: str | None


@dataclass(frozen=True, eq=False)
class ReadBack:
    """What came of a list.

    Attributes:
        outcome: How many flagged, chosen and other scans were looked at, changed and bad, and how
            far predicted Dice agrees with the Dice of corrected labels.
        output: The list's folder.
    """

    outcome: Outcome
    output: Path

    def write(self) -> OutcomeFiles:
        """Write outcome.json and outcome.html into the list's folder; a page that cannot be made
        costs itself alone.

        Raises:
            UserError: outcome.json cannot be written.
        """
        document = self.output / OUTCOME
        page = self.output / OUTCOME_PAGE
        write_atomically(document, to_json_text(encode(self.outcome)))
        why_no_page = write_page(page, partial(outcome_page, self.outcome))
        return OutcomeFiles(document, page if why_no_page is None else None, why_no_page)


def read_back(
    output: str | PathLike,
    marks: Sequence[str | PathLike] = (),
    corrected: str | PathLike | None = None,
) -> ReadBack:
    """Read what readers made of a list: their marks, and corrected labels.

    Args:
        output: Folder of a list that :func:`nnunet_nacl.predict` or :func:`nnunet_nacl.review`
            wrote.
        marks: Files of marks that the pages save, or annotations.csv of SegmentationReview; the
            last mark counts.
        corrected: Folder of corrected labels of some scans, named like the predictions.

    Returns:
        What came of the flags; :meth:`ReadBack.write` writes it.

    Raises:
        UserError: There are neither marks nor corrected labels, or something cannot be read or is
            of another list.
    """
    if not marks and corrected is None:
        raise UserError("give marks or the folder of corrected labels, or both.")
    folder = Path(output)
    check_ours([folder / OUTCOME, folder / OUTCOME_PAGE])
    labels = None if corrected is None else Path(corrected)
    return ReadBack(read_outcome(folder, [Path(file) for file in marks], labels), folder)
