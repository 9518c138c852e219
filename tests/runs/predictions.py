"""Folders of predictions without ground truth, as nnUNetv2_predict leaves them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.settings import ListSettings, Output
from nnunet_nacl.worklist.review import review_folder
from nnunet_nacl.worklist.review_list import ReviewList
from tests.runs.folders import CLASSES, describe, random_case, write_json, write_prediction

SPACING_MM = (2.0, 1.0, 0.5)  # z, y, x
SHAPE = (6, 14, 12)


def predictions_in(parent: Path) -> Callable[..., Path]:
    """Function that writes one folder of predictions; the same seed gives the same cases."""

    def build(
        name: str = "predictions",
        *,
        labels: dict | None = None,
        cases: int = 3,
        seed: int = 0,
        file_ending: str = ".nii.gz",
        reader: str = "SimpleITKIO",
        shape: tuple[int, ...] = SHAPE,
        dtype: str = "float32",
    ) -> Path:
        labels = labels or CLASSES
        folder = parent / name
        folder.mkdir()
        dataset, plans = describe(labels, cases, file_ending, reader)
        write_json(folder / "dataset.json", dataset)
        write_json(folder / "plans.json", plans)
        write_json(folder / "predict_from_raw_data_args.json", {})
        rng = np.random.default_rng(seed)
        for i in range(cases):
            less_with_each_case = 6 - 1.5 * i
            _, probs, segmentation = random_case(rng, labels, shape, less_with_each_case)
            probs = probs.astype(dtype)
            write_prediction(folder, f"case_{i}", probs, segmentation, SPACING_MM, file_ending)
        return folder

    return build


def empty_prediction(folder: Path, case: str, background: float = 0.9) -> None:
    """Let a case of CLASSES have nothing but background."""
    probs = np.full((3, *SHAPE), (1 - background) / 2, dtype=np.float32)
    probs[0] = background
    write_prediction(folder, case, probs, np.zeros(SHAPE, dtype=np.uint8), SPACING_MM)


def reviewed(folder, output, *, overwrite=False, num_processes=1, **wanted) -> ReviewList:
    """What `nnunet_nacl review` makes of a folder, without a map."""
    writing = Output(output=output, num_processes=num_processes, overwrite=overwrite)
    predictions = PredictionFolder.open(folder, need_reference=False)
    return review_folder(predictions, ListSettings(**wanted), writing, None).review_list
