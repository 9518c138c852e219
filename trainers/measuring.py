"""Measures calibration in nnU-Net's final validation, whether probabilities are saved or not."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2.configuration import default_num_processes
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

from nnunet_nacl_trainers.recording import harmless

_EXPORT = "export_prediction_from_logits"


@contextmanager
def measured_validation(trainer: module.nnUNetTrainer) -> Iterator[None]:
    """Around nnU-Net's validation: its workers measure each case that they export, and rank 0 writes calibration.json.

    A failure of that is a warning in the training log, never a lost validation.
    """
    validation = Path(trainer.output_folder, "validation")
    references = Path(trainer.preprocessed_dataset_folder_base, "gt_segmentations")
    stock, log = getattr(module, _EXPORT, None), trainer.print_to_log_file
    with harmless(log, "calibration is not measured in this validation", set()):
        from nnunet_nacl.nnunet.measured_export import MeasuredExport
        from nnunet_nacl.nnunet.prediction_folder import PredictionFolder

        validation.mkdir(parents=True, exist_ok=True)
        export = MeasuredExport(PredictionFolder.open(validation, references))
        pickle.dumps(export)  # or nnU-Net's workers would never get it
        setattr(module, _EXPORT, export)
    try:
        yield
    finally:
        setattr(module, _EXPORT, stock)
    if trainer.local_rank == 0:  # all ranks have met at nnU-Net's barrier by now
        with harmless(log, "calibration was not evaluated", set()):
            from nnunet_nacl.case.document import FILE_NAME
            from nnunet_nacl.files import remove_leftovers
            from nnunet_nacl.runs.evaluate import evaluate_folder

            output = validation / FILE_NAME
            remove_leftovers(validation)
            evaluation = evaluate_folder(validation, references, output=output, num_processes=default_num_processes)
            for case, problem in evaluation.problems.items():
                log(f"WARNING: calibration: {case}: {problem}")
            means = (f"{mask} {evaluation.mean_ece(mask):.4f}" for mask in ("foreground", "predicted", "all"))
            log(f"Calibration (mean over {len(evaluation.cases)} cases): ECE {', '.join(means)}; more in {output}")
