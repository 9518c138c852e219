"""A small study as research/results measures it: networks, predictions, votes of raters."""

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
MAKER = "maker"
"""Of the scanners of most patients."""
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
        return self._arguments_of(TRAINER)

    def _arguments_of(self, trainer: str) -> list[str]:
        folders = ["-task", str(self.task), "-work", str(self.work)]
        return [*folders, "-d", "999", "-c", CONFIGURATION, "-tr", trainer]

    def copy_without(self, case: str) -> list[str]:
        """Make networks of another trainer with the same folds, but for a validation case; what
        tells measure.py of them."""
        (dataset_folder,) = Path(self.environment["nnUNet_results"]).iterdir()
        model = model_folder(dataset_folder, f"{TRAINER}_seed2")
        shutil.copytree(
            model_folder(dataset_folder, TRAINER), model, ignore=shutil.ignore_patterns(f"{case}.*")
        )
        return self._arguments_of(f"{TRAINER}_seed2")


def make_small_study(root: Path, losses: tuple[str, ...]) -> SmallStudy:
    """Write the study.

    Args:
        root: Folder that it is written to.
        losses: Trainers, without ``nnUNetTrainer``, that have validated one fold.
    """
    made = make_model(  # with this seed it segments a few voxels
        root / "results", labels=LABELS, folds=FOLDS, channels=("CT",), seed=2
    )
    model = made.rename(model_folder(made.parent, TRAINER))
    images = root / "raw" / model.parent.name / "imagesTr"
    truths = root / "preprocessed" / model.parent.name / "gt_segmentations"
    task = root / "task"
    scanner_images = task / "shift" / OTHER_SCANNER / "images"
    scanner_truths = task / "shift" / OTHER_SCANNER / "labels"
    for folder in (images, truths, task / "votes", scanner_images, scanner_truths):
        folder.mkdir(parents=True)
    write_json(task / "patients.json", PATIENTS)
    write_json(task / "outer_test.json", list(OUTER_CASES))
    makers = {"patient_5": "other maker"}
    rows = [f"{patient},{makers.get(patient, MAKER)}" for patient in PATIENTS.values()]
    lines = ["patient,manufacturer", *dict.fromkeys(rows)]
    (task / "scans.csv").write_text("\n".join(lines), encoding="utf-8")
    rng = np.random.default_rng(0)
    for i, case in enumerate(PATIENTS):
        votes = draw_votes(rng, case in _ABSENT)
        truth = (votes >= 2).astype(np.uint8)
        image = (rng.normal(50, 20, SHAPE) + 40 * votes).astype(np.float32)
        is_shifted = case in SCANNER_CASES
        truth_folder = scanner_truths if is_shifted else truths
        image_folder = scanner_images if is_shifted else images
        write_image(votes, task / "votes" / f"{case}.nii.gz", SPACING_MM)
        write_image(truth, truth_folder / f"{case}.nii.gz", SPACING_MM)
        write_image(image, image_folder / f"{case}_0000.nii.gz", SPACING_MM)
        if case in VALIDATION_CASES:
            validation = model / f"fold_{i % FOLDS}" / "validation"
            validation.mkdir(exist_ok=True)
            write_validation_case(validation, case, votes, rng)
            write_json(validation / "summary.json", {})
    for loss in losses:
        copy_first_fold(model, model_folder(model.parent, loss))
    environment = {
        "nnUNet_raw": str(root / "raw"),
        "nnUNet_preprocessed": str(root / "preprocessed"),
        "nnUNet_results": str(root / "results"),
    }
    return SmallStudy(task, root / "work", environment)


def model_folder(dataset_folder: Path, trainer: str) -> Path:
    """The folder of a model in nnU-Net's results, of a trainer without ``nnUNetTrainer``."""
    return dataset_folder / f"nnUNetTrainer{trainer}__nnUNetPlans__{CONFIGURATION}"


def copy_first_fold(model: Path, target: Path) -> None:
    """Write a model that has validated fold 0, with another model's predictions."""
    (target / "fold_0").mkdir(parents=True)
    for name in ("dataset.json", "plans.json"):
        shutil.copy(model / name, target / name)
    shutil.copytree(model / "fold_0" / "validation", target / "fold_0" / "validation")


def draw_votes(rng: np.random.Generator, is_absent: bool) -> np.ndarray:
    """How many of four raters marked each voxel of a nodule; of an absent one a single rater."""
    coordinates = [np.linspace(-1, 1, n) for n in SHAPE]
    grid = np.stack(np.meshgrid(*coordinates, indexing="ij"))
    distance = np.sqrt((grid**2).sum(0))
    if is_absent:
        return (distance < 0.4).astype(np.uint8)
    radii = np.sort(rng.uniform(0.4, 0.8, 4))
    return sum((distance < radius).astype(np.uint8) for radius in radii)


def write_validation_case(
    folder: Path, case: str, votes: np.ndarray, rng: np.random.Generator
) -> None:
    """What a network predicted: surer where more raters marked a voxel, and noise."""
    odds = 2.0 * votes - 4 + rng.normal(0, 1.5, votes.shape)
    probability = 1 / (1 + np.exp(-odds))
    probs = np.stack([1 - probability, probability]).astype(np.float32)
    write_prediction(folder, case, probs, probs.argmax(0).astype(np.uint8), SPACING_MM)
