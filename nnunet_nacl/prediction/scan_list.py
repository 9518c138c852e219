"""The list of a folder of scans, of all runs that share them: whichever of them ends last has all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnunet_nacl.cases.review_list import FinishedCase
from nnunet_nacl.documents.map_file import structures_of
from nnunet_nacl.json_files import one_line
from nnunet_nacl.prediction.input_cases import InputCase
from nnunet_nacl.prediction.review_lists import ReviewList, thresholds_of
from nnunet_nacl.prediction.trained_model import TrainedModel

if TYPE_CHECKING:
    from nnunet_nacl.prediction.scan_run import ScanRun

NOT_YET = "not predicted yet: run the part that has it."


def write_lists(
    model: TrainedModel,
    run: ScanRun,
    look_up: Callable[[], tuple[dict[str, FinishedCase], dict[str, str]]],
    cases: Sequence[InputCase],
    unusable: Mapping[str, str],
    settings: Mapping[str, Any],
    page: Callable[[ReviewList], str],
) -> ReviewList:
    """Write the list of all cases, whichever part made them.

    Args:
        model: That made them.
        run: This part.
        look_up: Tells which cases are finished now, and why others could not be done.
        cases: Of all parts.
        unusable: Why others are no cases.
        settings: Of the run.
        page: Makes the page.
    """
    while True:
        finished, wrong = look_up()
        waiting = [case.case for case in cases if case.case not in finished and case.case not in wrong]
        wrong = dict(sorted({**wrong, **unusable}.items()))
        labels = model.labels
        found = ReviewList(
            str(model.opened.plans.get("dataset_name") or model.folder.name),
            finished,
            [labels.names[channel] for channel in labels.foreground],
            [f"fold_{fold}" for fold in model.folds],
            model.quality,
            thresholds_of(run.threshold, structures_of(labels), model.quality),
            {**wrong, **dict.fromkeys(waiting, NOT_YET)},
            _notes(model, settings) + _others(run, model, {case.case for case in cases} | wrong.keys()),
            _made(model, run),
            model.training.words,
        )
        content = _describe(model, run, settings) | {"problems": wrong, "not_predicted_yet": waiting}
        found.write(run.output, content, page)
        if look_up()[0].keys() == finished.keys():  # no other part has gone on meanwhile
            return found


def _notes(model: TrainedModel, settings: Mapping[str, Any]) -> list[str]:
    notes = [f"{one[0].upper()}{one[1:]}" for one in model.missing]
    notes += model.other_inference(settings["step_size"], settings["mirroring"])
    if model.quality is not None:
        notes += model.quality.reservations((), several=len(model.folds) > 1)
    if settings["postprocessing"] and model.quality is not None:
        notes.append("Predicted Dice was learned from segmentations without postprocessing.")
    return notes


def _others(run: ScanRun, model: TrainedModel, cases: Collection[str]) -> list[str]:
    """That segmentations lie in the folder that are not of this run's scans."""
    ending = model.opened.file_ending
    found = sorted(path.name.removesuffix(ending) for path in run.output.glob(f"*{ending}"))
    if not (others := [case for case in found if case not in cases]):
        return []
    shown = ", ".join(map(one_line, others[:3])) + (", ..." if len(others) > 3 else "")
    many = len(others) > 1
    return [
        f"{run.output} holds {len(others)} segmentation{'s' * many} of scans that are not in {run.images} ({shown}): "
        "of an earlier run, and not in this list."
    ]


def _made(model: TrainedModel, run: ScanRun) -> dict[str, str]:
    labels = "nnU-Net's own labels, as nnUNetv2_predict"
    if model.treatment.beta:
        labels = f"decided for the highest expected {model.treatment.rule}"
    return {
        "Scans": str(run.images),
        "Model": model.folder.name,
        "Folds": ", ".join(model.folds),
        "Checkpoint": model.checkpoint + ("" if model.treatment.map else " (not calibrated)"),
        "Segmentations": labels,
    }


def _describe(model: TrainedModel, run: ScanRun, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
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
        "calibrated": model.treatment.map is not None,
        "calibration_map": model.map_file,
        "decide": model.treatment.rule,
        "step_size": settings["step_size"],
        "mirroring": settings["mirroring"],
        "postprocessing": settings["postprocessing"] or None,
        "maps": settings["maps"],
        "training_range": model.training.source,
    }
