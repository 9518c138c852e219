"""A fold's predictions as if they had been calibrated, decided for Dice, or both: what is measured, and where it goes.

Nothing of it is written but the document: each case is calibrated and decided when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.presence import LearnedPresence
from nnunet_nacl.cases.checkpoints import CALIBRATED
from nnunet_nacl.cases.evaluate import came_from
from nnunet_nacl.cases.heldout import AFTER_FOLDER
from nnunet_nacl.cases.locate import predicted_folder
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.cases.quality_block import DECIDED
from nnunet_nacl.cases.treatment import Treatment
from nnunet_nacl.documents.document import FILE_NAME, read_document
from nnunet_nacl.documents.results import Evaluation
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode
from nnunet_nacl.prediction.validation_prediction import check_checkpoint


def treated_folder(folder: PredictionFolder, treatment: Sequence[str]) -> tuple[PredictionFolder, Path]:
    """A fold's validation folder as if ``treatment`` had been done to it, some of ``TREATMENTS``, and its document.

    What the calibrated checkpoint predicted stands for it if that is all that is known of the fold after calibration.

    Raises:
        UserError: It shall be calibrated, and `nnunet_nacl calibrate` has not been run on these predictions.
    """
    fold = folder.folder.parent
    if not treatment:
        return folder, folder.folder / FILE_NAME
    predicted = predicted_folder(fold, CALIBRATED)
    by_map = (fold / AFTER_FOLDER / FILE_NAME).is_file()
    if tuple(treatment) == ("calibrated",) and not by_map and (predicted / FILE_NAME).is_file():
        check_checkpoint(predicted)
        return replace(folder, folder=predicted), predicted / FILE_NAME
    beta = 1.0 if "decided" in treatment else None
    document = fold / "_".join(("validation", *treatment)) / FILE_NAME
    if "calibrated" not in treatment:
        return folder.treated(Treatment(beta=beta)), document
    _, treatments = _calibrated(folder)
    return folder.treated({case: replace(one, beta=beta) for case, one in treatments.items()}), document


def decided_blocks(folder: PredictionFolder) -> dict[str, Any]:
    """What `calibrate` measured of a fold's cases as they would be decided; nothing where they are other predictions.

    Returns:
        The block ``DECIDED`` by case.
    """
    try:
        document, _ = _calibrated(folder)
    except UserError:
        return {}
    return {case.case: case.blocks[DECIDED] for case in document.cases if DECIDED in case.blocks}


def _calibrated(folder: PredictionFolder) -> tuple[Evaluation, dict[str, Treatment]]:
    """What `calibrate` measured, and the treatment of each case, all of which was learned without it."""
    fold = folder.folder.parent
    place = fold / AFTER_FOLDER / FILE_NAME
    trainer, plans, configuration = fold.resolve().parent.name.split("__")
    arguments = f" -d {fold.resolve().parent.parent.name} -tr {trainer} -p {plans} -c {configuration}"
    command = f"run `nnunet_nacl calibrate{arguments}`"
    if not place.is_file():
        raise UserError(
            f"{fold} has no {AFTER_FOLDER}/{FILE_NAME}; {command}, or, where that has only samples to go by (no npz), "
            f"with --write_checkpoints, and then `nnunet_nacl evaluate{arguments} --predict -chk {CALIBRATED}`."
        )
    document, treatments = read_document(place), {}
    for case in document.cases:
        try:
            derived = case.signature["derived"]
            slopes, offsets = derived["map"]
            own = CalibrationMap(slopes, offsets, folder.labels.regions)
            treatments[case.case] = Treatment(own, presence=decode(LearnedPresence, derived["presence"], place))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{place}: {case.case} has no map of this version ({error}); {command} again.") from None
        if derived != treatments[case.case].to_json():
            raise UserError(f"{place}: {case.case} was measured by an earlier version; {command} again.")
    results = {case.case: case for case in document.cases}
    found, _ = folder.treated(treatments).cases(known=results)
    try:
        stale = [one.case for one in found if not came_from(results[one.case], one, folder.labels, document.settings)]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions.") from None
    if stale:
        raise UserError(
            f"{fold}: {len(stale)} predictions, {stale[0]} first, are not those that were calibrated; {command} again."
        )
    return document, treatments
