"""Scores of scans: how sure it is that no structure of a scan is bad.

The score of a scan is the smallest, over the structures that count, of a structure's score
(:func:`structure_score`) minus the Dice below which it is bad.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from nnunet_nacl.utilities.json_types import Patients, Share

DIGITS = 4
"""Of scores and Dice that are kept."""


def structure_score(predicted_dice: ArrayLike, present: ArrayLike, always: bool) -> np.ndarray:
    """(...) score of a structure: its predicted Dice where it was segmented, else 1 - p.

    NaN where p is needed and not known. Four digits put scans that are alike on one side of a
    threshold.

    Args:
        predicted_dice: (...) NaN where the structure was not segmented.
        present: (...) p, the probability that it is present; NaN where that was not learned.
        always: Whether all calibration scans have it: then p is 1 where it was not learned.
    """
    predicted_dice = np.asarray(predicted_dice, float)
    probability = np.asarray(present, float)
    if always:
        probability = np.where(np.isnan(probability), 1.0, probability)
    is_segmented = ~np.isnan(predicted_dice)
    return np.where(is_segmented, predicted_dice, 1 - probability).round(DIGITS)


@dataclass(frozen=True, eq=False, kw_only=True)
class ScanScores:
    """The calibration scans, each as maps saw it that were fitted without its patient.

    Attributes:
        score: By structure (n,) its score, see :func:`structure_score`; NaN where nothing is known.
        dice: By structure (n,) true Dice; 0 for one that was missed or invented, NaN for one that
            is in neither.
        entropy: (n,) mean normalised entropy over the segmented structures; NaN where nothing was
            segmented.
        patient: (n,) to whom each scan belongs, numbers from 0.
        always: Structures that all scans have.
    """

    score: dict[str, list[Share]]
    dice: dict[str, list[Share]]
    entropy: list[Share]
    patient: Patients
    always: list[str]

    def __post_init__(self) -> None:
        lengths = {len(self.entropy)}
        for values in (*self.score.values(), *self.dice.values()):
            lengths.add(len(values))
        are_same_structures = self.score.keys() == self.dice.keys() and bool(self.score)
        if not are_same_structures or not set(self.always) <= self.score.keys():
            raise ValueError("scores, Dice and patients must be of the same structures and scans")
        if lengths != {len(self.patient)}:
            raise ValueError("scores, Dice and patients must be of the same structures and scans")

    def score_scans(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) score of each scan; NaN without any score.

        ``bad`` is, by key of each structure that counts, the Dice below which it is bad.
        """
        margins = [np.array(self.score[key]) - limit for key, limit in bad.items()]
        return np.fmin.reduce(margins)

    def are_bad(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) whether the Dice of a structure that counts is below what ``bad`` says."""
        are_below = [np.array(self.dice[key]) < limit for key, limit in bad.items()]  # NaN is not
        return np.any(are_below, axis=0)
