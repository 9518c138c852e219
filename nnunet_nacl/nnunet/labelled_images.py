"""Records of labelled images that a model's folds predict, and were not trained on."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

from nnunet_nacl.errors import UserError, list_problems, some
from nnunet_nacl.nnunet.held_out import HeldOut
from nnunet_nacl.nnunet.places import splits_of
from nnunet_nacl.nnunet.records import Work, records_of
from nnunet_nacl.nnunet.scans import Images


def measure_images(
    source: Images, records: Path, work: Work, *, jobs: int, training_cases: bool
) -> HeldOut:
    """Predict labelled images by all folds of a model, and measure them.

    What an earlier run finished is kept. Images that nobody has labelled are left out.

    Args:
        source: The images, with the folder of their labels.
        records: Folder of the records.
        work: What is measured.
        jobs: Cases at the same time.
        training_cases: Whether cases that folds were trained on are allowed.

    Raises:
        UserError: The model is a cascade, no image has a label map, or folds were trained on some
            of the cases.
    """
    stage = source.model.previous_stage
    if stage is not None:
        raise UserError(
            f"{source.model.folder.name} is a cascade, which needs segmentations of {stage} beside"
            " images: predict them with `nnUNetv2_predict ... --save_probabilities`, and give that"
            " folder without a model."
        )
    _leave_out_unlabelled(source)
    if not training_cases:
        _check_not_trained_on(source)
    held_out = HeldOut(source.labels, work.settings, problems=source.problems)
    held_out.add("", dict(records_of(source, work, records, jobs=jobs, title="predicting")))
    return held_out


def _leave_out_unlabelled(source: Images) -> None:
    """Leave out the images without a label map; UserError where none has one."""
    n_images = len(source.scans)
    labelled = {}
    for name, scan in source.scans.items():
        truth = source.files(name)["reference"]
        if truth is not None and truth.is_file():
            labelled[name] = scan
    source.scans = labelled
    if not labelled:
        ending = source.model.dataset.file_ending
        raise UserError(
            f"{source.references}: holds the label map (CASE{ending}) of none of the"
            f" {n_images} images.{list_problems(source.problems)}"
        )


def _check_not_trained_on(source: Images) -> None:
    """UserError where folds were trained on some of the images."""
    trained = _trained_on(source)
    if trained:
        raise UserError(
            f"{len(trained)} of {len(source.scans)} cases were used to train these folds:"
            f" {some(trained)}. On them networks are right too often: give other cases, or pass"
            " [[training_cases=True]]."
        )


def _trained_on(source: Images) -> list[str]:
    """Names of the cases that folds were trained on.

    They are in the training part of a fold, and have the label map or the first channel that
    nnU-Net had: other cases may have the same names.
    """
    # os.devnull is a path below which no file can lie
    dataset = source.model.dataset.name or os.devnull
    preprocessed = Path(os.environ.get("nnUNet_preprocessed") or os.devnull)
    raw = Path(os.environ.get("nnUNet_raw") or os.devnull)
    names_in_training = _names_in_training(source, dataset)
    trained = []
    for case in source.names:
        if case not in names_in_training:
            continue
        truth = source.files(case)["reference"] or Path()
        image = source.path(case)
        if _is_same_file(
            truth, preprocessed / dataset / "gt_segmentations" / truth.name
        ) or _is_same_file(image, raw / dataset / "imagesTr" / image.name):
            trained.append(case)
    return trained


def _names_in_training(source: Images, dataset: str) -> set[str]:
    """Names of the cases in the training part of one of a model's folds.

    fold_all, and random splits beyond those of the file, may have seen any case.
    """
    splits = splits_of(dataset)
    names: set[str] = set()
    for fold in source.model.folds:
        if fold == "all" or int(fold) >= len(splits):
            return set(source.names)
        names |= set(splits[int(fold)]["train"])
    return names


def _is_same_file(path: Path, other: Path) -> bool:
    """Whether another file is there, and holds the same."""
    return other.is_file() and filecmp.cmp(path, other, shallow=False)
