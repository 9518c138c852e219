"""What trainers do with nnU-Net's validation: measure its cases, write calibration.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nnunet_nacl.cases.case import MadeBy
from nnunet_nacl.comparison.calibration_report import FILE_NAME
from nnunet_nacl.comparison.evaluation import Evaluation
from nnunet_nacl.nnunet.export import MeasuredExport
from nnunet_nacl.nnunet.held_out import NNUNETS_OWN, measure_folders
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.utilities.files import checksum, remove_leftovers


def make_export(
    validation_folder: Path, truth_folder: Path, checkpoint: Path | None
) -> MeasuredExport:
    """nnU-Net's export of a case, which also leaves a record of it.

    ``checkpoint`` is the file whose weights predict, as nnU-Net predicts validation cases; where it
    is not known or gone, records do not say which network made them.
    """
    validation_folder.mkdir(parents=True, exist_ok=True)
    made_by = MadeBy()
    if checkpoint is not None and checkpoint.is_file():
        made_by = MadeBy(checkpoint=checksum(checkpoint), **NNUNETS_OWN)
    return MeasuredExport(PredictionFolder.open(validation_folder, truth_folder), made_by)


def write_evaluation(
    validation_folder: Path, truth_folder: Path, num_processes: int, log: Callable[[str], None]
) -> None:
    """Write calibration.json of the records of an export, and its main numbers to the log."""
    folder = PredictionFolder.open(validation_folder, truth_folder)
    work = Work(settings=folder.dataset.settings, with_sample=True)
    remove_leftovers(validation_folder)
    measured = measure_folders({"": folder}, work, jobs=num_processes)
    for case, problem in measured.problems.items():
        log(f"WARNING: calibration: {case}: {problem}")
    records = list(measured.records.values())
    evaluation = Evaluation(records, folder.labels, work.settings, measured.problems)
    path = validation_folder / FILE_NAME
    evaluation.write(path)
    means = evaluation.calibration["mean"]
    errors = [f"{mask} {means[mask]['ECE']:.4f}" for mask in ("foreground", "predicted", "all")]
    log(f"Calibration (mean over {len(records)} cases): ECE {', '.join(errors)}; more in {path}")
