"""Where a model's predictions of its data set's test cases lie, as `nnunet_nacl campaign` makes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.errors import UserError

__all__ = ["FOLDER", "folder_of_test_cases", "open_test_folder"]

FOLDER = "test"
"""In the model folder, beside the folds."""


def folder_of_test_cases(model: Path, treatment: Sequence[str]) -> Path:
    """Folder of the test cases' predictions as they are, or as ``treatment`` leaves them."""
    return model / "_".join((FOLDER, *treatment))


def open_test_folder(model: Path, treatment: Sequence[str], dataset: str) -> PredictionFolder:
    """The predictions of the cases in imagesTs, with their ground truth in labelsTs of nnUNet_raw.

    Raises:
        UserError: They are missing.
    """
    folder = folder_of_test_cases(model, treatment)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; `nnunet_nacl campaign` with `cases: test` predicts the test cases.")
    root = os.environ.get("nnUNet_raw")
    if not root:
        raise UserError("the environment variable nnUNet_raw is not set; the labels of the test cases lie there.")
    return PredictionFolder.open(folder, Path(root) / dataset / "labelsTs")
