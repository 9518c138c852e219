"""How good a scan's segmentation can be expected to be: its score, and those of the calibration scans.

What Dice a structure can expect follows from its predicted Dice x and the probability p that it is in the scan:

    segmented:      p x      (where it is absent the Dice is 0)
    not segmented:  1 - p    (where it is there the Dice is 0)

with p = 1 where that was not learned, for a structure that all calibration scans have; of one that some have, without
anything learned about which, x where it is segmented, and nothing where it is not. Where x says no more than a
constant, p alone counts. The score of a scan is the smallest,
over the structures that count, of this less the Dice below which the structure is bad. It has four digits, in the map's
file as in use, so that scans that are alike are on the same side of a threshold. On left-out patients of three data
sets it orders scans as well as the probability that one is bad does, which needs the distribution of errors too.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from nnunet_nacl.json_files import Patients, Share

_DIGITS = 4


def structure_score(predicted_dice: ArrayLike, present: ArrayLike, always: bool, says_nothing: bool) -> np.ndarray:
    """(...) Dice that a structure can expect, with four digits, see above; NaN where nothing is known.

    Args:
        predicted_dice: (...) NaN where the structure was not segmented.
        present: (...) probability that it is in the scan; NaN where that was not learned.
        always: Whether all calibration scans have it.
        says_nothing: Whether on left-out patients a constant was as near to the true Dice: then p alone counts.
    """
    x, p = np.asarray(predicted_dice, float), np.asarray(present, float)
    p = np.where(np.isnan(p) & always, 1.0, p)
    likely = np.where(np.isnan(p), 1.0, p)
    unknown = says_nothing & (np.isnan(p) | always)
    segmented = np.where(unknown, math.nan, likely if says_nothing else x * likely)
    return np.where(np.isnan(x), 1 - p, segmented).round(_DIGITS)


@dataclass(frozen=True, eq=False)
class ScanScores:
    """The calibration scans, each as maps saw it that were fitted without its patient.

    Attributes:
        score: By structure (n,) the Dice that it can expect, see :func:`structure_score`; NaN where nothing is known.
        dice: By structure (n,) true Dice; 0 for one that was missed or invented, NaN for one that is in neither.
        entropy: (n,) mean normalised entropy over the segmented structures; NaN where nothing was segmented.
        patient: (n,) to whom each scan belongs, numbers from 0.
        always: Structures that all scans have.

    Raises:
        ValueError: Lists or structures do not belong together.
    """

    score: dict[str, list[Share]]
    dice: dict[str, list[Share]]
    entropy: list[Share]
    patient: Patients
    always: list[str]

    def __post_init__(self) -> None:
        lengths = {len(values) for values in (*self.score.values(), *self.dice.values(), self.entropy)}
        known = self.score.keys() == self.dice.keys() and self.score and set(self.always) <= self.score.keys()
        if not known or lengths != {len(self.patient)}:
            raise ValueError("scores, Dice and patients must be of the same structures and scans")

    @classmethod
    def learn(
        cls,
        predicted: Mapping[str, np.ndarray],
        present: Mapping[str, np.ndarray],
        dice: Mapping[str, np.ndarray],
        entropy: np.ndarray,
        patients: Sequence[Hashable],
        always: Sequence[str],
        says_nothing: Sequence[str],
    ) -> ScanScores:
        """Of (n,) values by structure, see the attributes and :func:`structure_score`."""
        scores = {
            key: structure_score(x, present[key], key in always, key in says_nothing) for key, x in predicted.items()
        }
        score, true = ({key: _rounded(of) for key, of in table.items()} for table in (scores, dice))
        return cls(score, true, _rounded(entropy), pd.factorize(np.array(patients, object))[0], list(always))

    def of_scans(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) score of each scan; NaN where no structure has one.

        Args:
            bad: By structure that counts, the Dice below which it is bad.
        """
        return np.fmin.reduce([np.array(self.score[key]) - limit for key, limit in bad.items()])

    def are_bad(self, bad: Mapping[str, float]) -> np.ndarray:
        """(n,) whether the Dice of a structure that counts is below what ``bad`` says."""
        return np.any([np.array(self.dice[key]) < limit for key, limit in bad.items()], axis=0)  # NaN is not


def _rounded(values: np.ndarray) -> list[float]:
    """The file stays small."""
    return np.round(np.asarray(values, float), _DIGITS).tolist()
