"""What a run says about its cases: review.csv, prediction.json and index.html, of all parts that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nnunet_nacl
from nnunet_nacl.documents.review_list import CaseReview, PredictedCase, in_order, review_csv_text
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import one_line
from nnunet_nacl.prediction.case_records import CaseRecords, FinishedCase
from nnunet_nacl.prediction.input_cases import InputCase
from nnunet_nacl.prediction.reasons import LOWEST_MEMBERS_DICE, reasons_to_look
from nnunet_nacl.prediction.trained_model import TrainedModel

if TYPE_CHECKING:
    from nnunet_nacl.prediction.scan_run import ScanRun

__all__ = ["DOCUMENT", "PAGE", "REVIEW", "Delivered", "deliver_lists"]

DOCUMENT = "prediction.json"
PAGE = "index.html"
REVIEW = "review.csv"


@dataclass(frozen=True)
class Delivered:
    """The lists of a folder.

    Attributes:
        output: The folder.
        cases: Rows of all parts, in the order in which to look at them.
        predicted: By case what the map predicts; None where nothing is known.
        reasons: By case why it needs a look.
        problems: By case of this part why it could not be done.
        waiting: Cases of other parts that are not done.
        notes: What whoever uses the list must know.
    """

    output: Path
    cases: list[CaseReview]
    predicted: dict[str, PredictedCase] | None
    reasons: dict[str, list[str]]
    problems: dict[str, str]
    waiting: list[str]
    notes: list[str]


def deliver_lists(
    model: TrainedModel,
    run: ScanRun,
    records: CaseRecords,
    cases: Sequence[InputCase],
    unusable: Mapping[str, str],
    settings: Mapping[str, Any],
    problems: dict[str, str],
    page: Callable[..., str],
) -> Delivered:
    """Write the lists from the records of all cases, whichever part made them: the part that ends last has all."""
    while True:
        done, wrong, waiting = _gather(records, cases, unusable)
        delivered = _deliver(model, run, settings, done, wrong, waiting, problems, page)
        if _gather(records, cases, unusable)[0].keys() == done.keys():  # no other part has gone on meanwhile
            return delivered


def _gather(
    records: CaseRecords, cases: Sequence[InputCase], unusable: Mapping[str, str]
) -> tuple[dict[str, FinishedCase], dict[str, str], list[str]]:
    """Finished cases, the problems of those that could not be done, and the cases of which nothing is known yet."""
    done, wrong, waiting = {}, {case: one_line(problem) for case, problem in unusable.items()}, []
    for case in cases:
        if finished := records.finished(case):
            done[case.case] = finished
        elif problem := records.problem(case.case):
            wrong[case.case] = problem
        else:
            waiting.append(case.case)
    return done, dict(sorted(wrong.items())), waiting


def _deliver(
    model: TrainedModel,
    run: ScanRun,
    settings: Mapping[str, Any],
    done: Mapping[str, FinishedCase],
    wrong: Mapping[str, str],
    waiting: list[str],
    problems: dict[str, str],
    page: Callable[..., str],
) -> Delivered:
    reviews = in_order([one.review for one in done.values()])
    quality = model.quality
    predicted = None if quality is None else {review.case: quality.predict(review) for review in reviews}
    reasons = {
        review.case: reasons_to_look(
            review, (predicted or {}).get(review.case), run.threshold, done[review.case].unlike
        )
        for review in reviews
    }
    notes = _notes(model, settings)
    rows = {**wrong, **{case: "not predicted yet: run the part that has it." for case in waiting}}
    members = [f"fold_{fold}" for fold in model.folds]
    text = review_csv_text(reviews, members, rows, predicted, run.threshold, reasons)
    write_atomically(run.output / REVIEW, text)
    text = page(model, run.images, reviews, done, predicted, reasons, rows, notes, run.threshold)
    write_atomically(run.output / PAGE, text)
    document = _describe(model, run, settings, notes) | {
        "n_cases": len(reviews),
        "n_to_look_at": sum(map(bool, reasons.values())),
        "problems": dict(wrong),
        "not_predicted_yet": waiting,
    }
    write_atomically(run.output / DOCUMENT, to_json_text(document))
    return Delivered(run.output, reviews, predicted, reasons, dict(sorted(problems.items())), waiting, notes)


def _notes(model: TrainedModel, settings: Mapping[str, Any]) -> list[str]:
    notes = [f"{one[0].upper()}{one[1:]}" for one in model.missing]
    if model.calibrated and not settings["mirroring"]:
        notes.append("Mirroring is off (--disable_tta), but the calibration was fitted with it: its numbers hold less.")
    if model.quality is not None and len(model.folds) > 1 and not model.quality.learned.as_deployed:
        notes.append(
            "The map learned from single networks: its intervals do not hold for the average of several folds."
        )
    if settings["postprocessing"] and model.quality is not None:
        notes.append("Predicted Dice was learned from segmentations without postprocessing.")
    return notes


def _describe(model: TrainedModel, run: ScanRun, settings: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    quality = model.quality
    return {
        "schema_version": 1,
        "generated_by": f"nnunet_nacl {nnunet_nacl.__version__}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": run.command,
        "images": str(run.images.resolve()),
        "model": {
            "folder": str(model.folder.resolve()),
            "dataset": model.opened.plans.get("dataset_name"),
            "trainer": model.trainer,
            "configuration": model.configuration,
            "checkpoint": model.checkpoint,
            "checkpoints_sha256": settings["checkpoints"],
        },
        "calibrated": model.calibrated,
        "calibration_map": (
            None if quality is None else {"file": str(quality.path.resolve()), "sha256": model.map_hash}
        ),
        "decide": "dice" if model.decided else "argmax",
        "step_size": settings["step_size"],
        "mirroring": settings["mirroring"],
        "postprocessing": settings["postprocessing"] or None,
        "maps": settings["maps"],
        "threshold": run.threshold,
        "members_dice_threshold": LOWEST_MEMBERS_DICE if len(model.folds) > 1 else None,
        "training_range": model.training.source,
        "notes": [
            *notes,
            "Research software, not for clinical use. The order is a ranking; no threshold is validated.",
        ],
    }
