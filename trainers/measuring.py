"""Measures calibration in nnU-Net's final validation, whether probabilities are saved or not."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.configuration import default_num_processes
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

_EXPORT = "export_prediction_from_logits"


@contextmanager
def measured_validation(trainer: module.nnUNetTrainer) -> Iterator[None]:
    """Around nnU-Net's validation: each case is measured where it is exported, and rank 0 writes calibration.json.

    nnU-Net's worker processes call :class:`~nnunet_nacl.runs.measured_export.MeasuredExport` in place of its own
    function. A failure of it is a warning in the training log, never a lost validation.

    Args:
        trainer: Whose validation runs in the block.
    """
    validation = os.path.join(trainer.output_folder, "validation")
    references = os.path.join(trainer.preprocessed_dataset_folder_base, "gt_segmentations")
    stock = export = getattr(module, _EXPORT, None)
    try:
        from nnunet_nacl.io.prediction_folder import PredictionFolder
        from nnunet_nacl.runs.measured_export import MeasuredExport, changed_in_nnunet

        if problem := changed_in_nnunet():
            raise RuntimeError(f"of this nnU-Net {problem}; update nnunet_nacl, or validate again with --val --npz")
        os.makedirs(validation, exist_ok=True)
        export = MeasuredExport(PredictionFolder.open(validation, references))
        pickle.dumps(export)  # or nnU-Net's workers would never get it
    except Exception as error:
        export = stock
        if trainer.local_rank == 0:
            trainer.print_to_log_file(f"WARNING: calibration is not measured in this validation: {error}")
    setattr(module, _EXPORT, export)
    try:
        yield
    finally:
        setattr(module, _EXPORT, stock)
    if trainer.local_rank == 0:  # all ranks have met at nnU-Net's barrier by now
        write_evaluation(Path(validation), references, trainer.print_to_log_file)


def write_evaluation(validation: Path, references: str | Path, log: Callable[[str], None]) -> None:
    """Write calibration.json beside summary.json; whatever goes wrong is a line of the log.

    The cases were measured when they were exported; those for which that failed are read from their npz files, if
    there are any. Does nothing where neither is there.

    Args:
        validation: ``fold_X/validation``; dataset.json and plans.json lie two levels above.
        references: ``gt_segmentations`` of the preprocessed data set.
        log: Takes one line of text.
    """
    try:
        from nnunet_nacl.documents.document import FILE_NAME
        from nnunet_nacl.files import remove_leftovers
        from nnunet_nacl.runs.evaluate import evaluate_folder, ledger_folder

        output = validation / FILE_NAME
        if not (any(validation.glob("*.npz")) or any(ledger_folder(output).glob("*.*"))):
            return
        remove_leftovers(validation)
        evaluation = evaluate_folder(validation, references, output=output, num_processes=default_num_processes)
        for case, problem in evaluation.problems.items():
            log(f"WARNING: calibration: {case}: {problem}")
        means = (f"{mask} {evaluation.mean_ece(mask):.4f}" for mask in ("foreground", "predicted", "all"))
        log(f"Calibration (mean over {len(evaluation.cases)} cases): ECE {', '.join(means)}; more in {output}")
    except Exception as error:
        log(f"WARNING: calibration was not evaluated: {type(error).__name__}: {error}")
