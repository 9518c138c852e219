"""Measures calibration in nnU-Net's final validation, whether probabilities are saved or not."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from nnunetv2.configuration import default_num_processes
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


@contextmanager
def measured_validation(trainer: nnUNetTrainer) -> Iterator[None]:
    """Around nnU-Net's validation: each case is measured where it is exported, and rank 0 writes calibration.json.

    A failure of it is a warning in the training log, never a lost validation.

    Args:
        trainer: Whose validation runs in the block.
    """
    validation = os.path.join(trainer.output_folder, "validation")
    references = os.path.join(trainer.preprocessed_dataset_folder_base, "gt_segmentations")
    with _measuring(trainer, validation, references):
        yield
    if trainer.local_rank == 0:  # all ranks have met at nnU-Net's barrier by now
        from nnunet_nacl.runs.folds import evaluate_after_validation

        evaluate_after_validation(
            validation, references, log=trainer.print_to_log_file, num_processes=default_num_processes
        )


def _measuring(trainer: nnUNetTrainer, validation: str, references: str) -> Any:
    try:
        from nnunet_nacl.io.prediction_folder import PredictionFolder
        from nnunet_nacl.runs.measured_export import MeasuredExport, changed_in_nnunet, measuring_validation

        if problem := changed_in_nnunet():
            raise RuntimeError(f"of this nnU-Net {problem}; update nnunet_nacl, or validate again with --val --npz")
        os.makedirs(validation, exist_ok=True)
        export = MeasuredExport(PredictionFolder.open(validation, references))
        pickle.dumps(export)  # or nnU-Net's workers would never get it
        return measuring_validation(export)
    except Exception as error:
        if trainer.local_rank == 0:
            trainer.print_to_log_file(f"WARNING: calibration is not measured in this validation: {error}")
        return nullcontext()
