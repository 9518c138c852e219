"""What went right and wrong in a demo, in two sentences: the new scans against their truth, and
calibration by its own test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.metrics.statistics import VERDICT_TEXTS
from nnunet_nacl.worklist.list_files import REVIEW, STRUCTURES

_LEAST_COVERAGE = 0.9
"""Share of the true Dice that their intervals aim to hold."""


@dataclass(frozen=True)
class ListOutcome:
    """How a list did on scans whose truth is known.

    Attributes:
        n_bad: Scans with a structure whose true Dice is below the limit.
        n_good: The others.
        n_bad_flagged: Flagged scans among the bad ones.
        n_good_flagged: Flagged scans among the others.
        n_dice: Structures of scans with an interval of their Dice and a true Dice.
        n_inside: Those whose true Dice lies in its interval.
    """

    n_bad: int
    n_good: int
    n_bad_flagged: int
    n_good_flagged: int
    n_dice: int
    n_inside: int


def measure_list(
    predictions: Path, labels: Path, structures: Mapping[str, int], bad_dice: float
) -> ListOutcome | None:
    """Compares a list with the true labels of its scans; None where there are none.

    Args:
        predictions: The output of ``predict``.
        labels: Folder of the true labels, files of the same names.
        structures: Label of each structure by its name.
        bad_dice: A scan with a structure whose true Dice is below it is bad.
    """
    listed = pd.read_csv(predictions / REVIEW, dtype={"case": str}).set_index("case")
    if not all((labels / f"{case}.nii.gz").is_file() for case in listed.index):
        return None
    table = pd.read_csv(predictions / STRUCTURES, dtype={"case": str})
    true_dice = []
    for case, name in zip(table.case, table.structure):
        truth = _read_labels(labels / f"{case}.nii.gz")
        predicted = _read_labels(predictions / f"{case}.nii.gz")
        label = structures[name]
        true_dice.append(count_overlap(truth == label, predicted == label).dice)
    table["dice"] = true_dice
    lowest_dice = table.groupby("case").dice.min().reindex(listed.index)
    is_bad = lowest_dice < bad_dice
    is_flagged = listed.flag == "yes"
    known = table.dropna(subset=["dice", "predicted_dice_low"])
    is_inside = known.dice.between(known.predicted_dice_low, known.predicted_dice_high)
    return ListOutcome(
        n_bad=int(is_bad.sum()),
        n_good=int((~is_bad).sum()),
        n_bad_flagged=int((is_bad & is_flagged).sum()),
        n_good_flagged=int((~is_bad & is_flagged).sum()),
        n_dice=len(known),
        n_inside=int(is_inside.sum()),
    )


def _read_labels(path: Path) -> np.ndarray:
    import nibabel

    return np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj)


def right_and_wrong(changes_of_nll: Mapping[str, str], outcome: ListOutcome | None) -> str:
    """Two sentences, each on a line of its own: what went right, and what went wrong.

    Args:
        changes_of_nll: By loss, what calibration did to the NLL where something is segmented:
            one of :data:`~nnunet_nacl.metrics.statistics.VERDICT_TEXTS`.
        outcome: How the list did; None where the truth of its scans is unknown.
    """
    right: list[str] = []
    wrong: list[str] = []
    for change in dict.fromkeys(changes_of_nll.values()):
        losses = [loss for loss in changes_of_nll if changes_of_nll[loss] == change]
        is_better = change == VERDICT_TEXTS["better"]
        _choose(right, wrong, is_better).append(
            f"NLL of {' and '.join(losses)} through calibration: {change}"
        )
    if outcome is not None:
        found_all = outcome.n_bad_flagged == outcome.n_bad
        _choose(right, wrong, found_all).append(
            f"{outcome.n_bad_flagged} of {outcome.n_bad} bad new scans are flagged"
        )
        _choose(right, wrong, not outcome.n_good_flagged).append(
            f"{outcome.n_good_flagged} of {outcome.n_good} good new scans are flagged"
        )
        is_covered = outcome.n_inside >= _LEAST_COVERAGE * outcome.n_dice
        _choose(right, wrong, is_covered).append(
            f"{outcome.n_inside} of {outcome.n_dice} true Dice lie in their 90 % intervals"
        )
    return f"Right: {_sentence(right)}\nWrong: {_sentence(wrong)}"


def _choose(right: list[str], wrong: list[str], went_well: bool) -> list[str]:
    return right if went_well else wrong


def _sentence(parts: Sequence[str]) -> str:
    if not parts:
        return "nothing that so few scans show."
    return f"{'; '.join(parts)}."
