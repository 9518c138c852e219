"""A study as research/results measures it, of eight small cases: networks, predictions, votes of
four raters."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.nnunet.untrained import SHAPE, SPACING_MM, make_model
from tests.runs.folders import write_image, write_json, write_prediction

LABELS = {"background": 0, "nodule": 1}
TRAINER = "DiceCE_25epochs_100iters_adam"
CONFIGURATION = "3d_fullres"
VALIDATION_CASES = {f"nodule_{i}": f"patient_{i}" for i in range(6)}
OUTER_CASES = {"nodule_6": "patient_6", "nodule_7": "patient_6"}
OTHER_SCANNER = "other"
SCANNER_CASES = {f"shifted_{i}": f"shifted_patient_{i}" for i in range(9)}
PATIENTS = VALIDATION_CASES | OUTER_CASES | SCANNER_CASES
FOLDS = 5
_ABSENT = ("nodule_1", "nodule_3", "nodule_5", "nodule_7", "shifted_1")
"""Nodules that one rater marked, so that the truth has none."""


@dataclass(frozen=True)
class SmallStudy:
    """Where it lies.

    Attributes:
        task: The task's folder: patients, outer test cases, votes.
        work: Folder for records.
        environment: nnU-Net's three variables.
    """

    task: Path
    work: Path
    environment: dict[str, str]

    @property
    def arguments(self) -> list[str]:
        """What tells measure.py which study it is."""
        named = {
            "-task": self.task,
            "-work": self.work,
            "-d": "999",
            "-c": CONFIGURATION,
            "-tr": TRAINER,
        }
        return [str(word) for pair in named.items() for word in pair]


def make_small_study(root: Path, losses: tuple[str, ...]) -> SmallStudy:
    """Writes a study.

    Args:
        root: Folder that it is written to.
        losses: Trainers, without ``nnUNetTrainer``, that have validated one fold.
    """
    results = root / "results"
    # which segments a few voxels
    made = make_model(results, labels=LABELS, folds=FOLDS, channels=("CT",), seed=2)
    model = made.rename(made.with_name(f"nnUNetTrainer{TRAINER}__nnUNetPlans__{CONFIGURATION}"))
    images = root / "raw" / model.parent.name / "imagesTr"
    truths = root / "preprocessed" / model.parent.name / "gt_segmentations"
    task = root / "task"
    votes = task / "votes"
    of_scanner = task / "shift" / OTHER_SCANNER
    scanner_images = of_scanner / "images"
    scanner_truths = of_scanner / "labels"
    for folder in (images, truths, votes, scanner_images, scanner_truths):
        folder.mkdir(parents=True)
    write_json(task / "patients.json", PATIENTS)
    write_json(task / "outer_test.json", list(OUTER_CASES))
    rng = np.random.default_rng(0)
    for i, case in enumerate(PATIENTS):
        marked = raters_of(rng, case in _ABSENT)
        write_image(marked, votes / f"{case}.nii.gz", SPACING_MM)
        is_shifted = case in SCANNER_CASES
        truth_folder = scanner_truths if is_shifted else truths
        write_image((marked >= 2).astype(np.uint8), truth_folder / f"{case}.nii.gz", SPACING_MM)
        image = (rng.normal(50, 20, SHAPE) + 40 * marked).astype(np.float32)
        image_folder = scanner_images if is_shifted else images
        write_image(image, image_folder / f"{case}_0000.nii.gz", SPACING_MM)
        if case in VALIDATION_CASES:
            validation = model / f"fold_{i % FOLDS}" / "validation"
            validation.mkdir(exist_ok=True)
            write_validation_case(validation, case, marked, rng)
            write_json(validation / "summary.json", {})
    for loss in losses:
        copied = model.with_name(f"nnUNetTrainer{loss}__nnUNetPlans__{CONFIGURATION}")
        (copied / "fold_0").mkdir(parents=True)
        for name in ("dataset.json", "plans.json"):
            shutil.copy(model / name, copied / name)
        shutil.copytree(model / "fold_0" / "validation", copied / "fold_0" / "validation")
    environment = {
        "nnUNet_raw": "raw",
        "nnUNet_preprocessed": "preprocessed",
        "nnUNet_results": "results",
    }
    return SmallStudy(
        task, root / "work", {name: str(root / folder) for name, folder in environment.items()}
    )


def raters_of(rng: np.random.Generator, is_absent: bool) -> np.ndarray:
    """How many of four raters marked each voxel of a nodule; of an absent one a single rater."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij"))
    distance = np.sqrt((grid**2).sum(0))
    if is_absent:
        return (distance < 0.4).astype(np.uint8)
    radii = np.sort(rng.uniform(0.4, 0.8, 4))
    return sum((distance < radius).astype(np.uint8) for radius in radii)


def write_validation_case(
    folder: Path, case: str, marked: np.ndarray, rng: np.random.Generator
) -> None:
    """What a network predicted: surer where more raters marked a voxel, and noise."""
    odds = 2.0 * marked - 4 + rng.normal(0, 1.5, marked.shape)
    probability = 1 / (1 + np.exp(-odds))
    probs = np.stack([1 - probability, probability]).astype(np.float32)
    write_prediction(folder, case, probs, probs.argmax(0).astype(np.uint8), SPACING_MM)
