"""Compares the corrected labels of readers with the segmentations that were delivered to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.record import find_record
from nnunet_nacl.cases.record_file import RECORDS
from nnunet_nacl.cases.record_key import file_key
from nnunet_nacl.metrics.overlap import Overlap
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.utilities.errors import UserError, describe, some

# a label seems renumbered where its Dice with itself is below the first, and its Dice with another
# label above the second
_NOTHING_IN_COMMON = 0.1
_MUCH_IN_COMMON = 0.5


@dataclass(frozen=True)
class Correction:
    """What corrected labels of a scan say of the delivered ones.

    Attributes:
        n_changed: Voxels with another label.
        dice: Of the delivered labels against the corrected ones, by structure; NaN where both lack
            it.
    """

    n_changed: int
    dice: dict[str, float]


@dataclass(frozen=True)
class Corrections:
    """What the corrected labels of a list say.

    Attributes:
        by_case: Of each scan whose corrected labels count.
        warnings: What must be checked before numbers are used.
    """

    by_case: dict[str, Correction] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_corrections(
    folder: PredictionFolder, corrected: Mapping[str, Path], *, without_unchanged: bool
) -> Corrections:
    """Compare corrected labels with the delivered ones.

    A scan whose segmentation in the folder is another one by now, by the digest in its record, is
    named in a warning, and its corrected labels do not count. A scan without a record is compared
    all the same, with a warning.

    Args:
        folder: Of the delivered segmentations.
        corrected: File of corrected labels, by case.
        without_unchanged: Whether labels that are as they were delivered do not count: so it is of
            copies that were made for an editor, which perhaps nobody has looked at.

    Raises:
        UserError: A file cannot be read, is the delivered one itself, or does not fit it.
    """
    by_case: dict[str, Correction] = {}
    warnings: list[str] = []
    without_record: list[str] = []
    for case, file in corrected.items():
        delivered = folder.folder / f"{case}{folder.dataset.file_ending}"
        if _is_same_file(file, delivered):
            raise UserError(
                f"{file}: the delivered segmentation itself; give the folder of the corrected ones."
            )
        digest_of_record = _digest_of_record(folder.folder, delivered.name, case)
        if digest_of_record is None:
            without_record.append(case)
        elif digest_of_record != _digest(delivered):
            warnings.append(_changed_since_text(delivered, case))
            continue
        joint_counts = _count_jointly(folder, delivered, file)
        correction = Correction(
            n_changed=int(joint_counts.sum() - np.trace(joint_counts)),
            dice=_dice_by_structure(joint_counts, folder.labels),
        )
        if without_unchanged and correction.n_changed == 0:
            continue
        by_case[case] = correction
        warnings += _find_renumbered_labels(joint_counts, file)
    if without_record:
        warnings.append(
            f"{folder.folder / RECORDS}: no record says how {some(without_record)} was delivered. "
            "If its segmentation was changed since, its Dice is too high."
        )
    return Corrections(by_case, warnings)


def _changed_since_text(delivered: Path, case: str) -> str:
    return (
        f"{delivered} is not what was delivered, it was changed since: the corrected labels"
        f" of {case} are not counted. Restore it, and keep corrected labels in a folder of"
        " their own."
    )


def _is_same_file(first: Path, second: Path) -> bool:
    """Whether two names are one file, through links of any kind."""
    with contextlib.suppress(OSError):  # one of them cannot be opened, which whoever reads it says
        return os.path.samefile(first, second)
    return False


def _digest_of_record(output: Path, name: str, case: str) -> str | None:
    """Digest of a segmentation as it was written, by the case's record; None where none says it."""
    record = find_record(output / RECORDS, case)
    if record is None or name not in record.files:
        return None
    return record.files[name]["digest"]


def _digest(path: Path) -> str:
    """Digest of a file as it is now; UserError where it cannot be read."""
    try:
        return file_key(path)["digest"]
    except OSError as error:
        raise UserError(describe(error, path)) from None


def _count_jointly(folder: PredictionFolder, delivered: Path, corrected: Path) -> np.ndarray:
    """(labels, labels) voxels by corrected label (rows) and delivered label (columns).

    Voxels that the corrected labels ignore are not counted.
    """
    delivered_labels, properties = folder.dataset.read_labels(delivered)
    like = (f"delivered {delivered}", Geometry.of(properties), delivered_labels.shape)
    corrected_labels, _ = folder.dataset.read_labels(corrected, is_truth=True, like=like)
    largest = max(corrected_labels.max(), delivered_labels.max(), *folder.labels.all_values)
    n_labels = int(largest) + 1
    number_of_pair = corrected_labels.ravel().astype(np.int64) * n_labels + delivered_labels.ravel()
    joint_counts = np.bincount(number_of_pair, minlength=n_labels**2).reshape(n_labels, n_labels)
    ignored = folder.labels.ignore_label
    if ignored is not None and ignored < n_labels:
        joint_counts[ignored] = 0
    return joint_counts


def _dice_by_structure(joint_counts: np.ndarray, labels: Labels) -> dict[str, float]:
    """Dice of each structure, by name; NaN where neither labels have it."""
    dice = {}
    for channel in labels.foreground:
        values = np.atleast_1d(labels.values[channel])
        true_positives = joint_counts[np.ix_(values, values)].sum()
        false_positives = joint_counts[:, values].sum() - true_positives
        false_negatives = joint_counts[values].sum() - true_positives
        overlap = Overlap(true_positives, false_positives, false_negatives, 0)
        dice[labels.names[channel]] = float(overlap.dice)
    return dice


def _find_renumbered_labels(joint_counts: np.ndarray, corrected: Path) -> list[str]:
    """A warning for each label that lies where the delivered labels have another one.

    Editors number the segments from 1 when they export them: where a structure is absent, those
    behind it move up.
    """
    n_corrected = joint_counts.sum(axis=1)
    n_delivered = joint_counts.sum(axis=0)
    dice = 2 * joint_counts / np.maximum(n_corrected[:, None] + n_delivered, 1)
    warnings = []
    for label in range(1, len(dice)):
        other = 1 + int(dice[label, 1:].argmax())
        dice_of_other = dice[label, other]
        if dice[label, label] < _NOTHING_IN_COMMON and dice_of_other > _MUCH_IN_COMMON:
            warnings.append(
                f"{corrected}: label {label} lies where {other} was delivered (their Dice is"
                f" {dice_of_other:.2f}). An editor may have numbered the structures anew: then put"
                " the labels right, and read them again."
            )
    return warnings
