"""The list of cases to look at first: one row a case, the one that is expected to be worst on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.calibration.dice_estimate import Prediction
from nnunet_nacl.cases.review_row import CaseReview, size_word
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.files import to_csv_text

LIKELY = 0.5
"""From this probability on a structure is taken to be in a scan."""


@dataclass(frozen=True)
class FinishedCase:
    """What is kept of a case that is written, for the lists.

    Attributes:
        row: Of the list.
        differences: How its image differs from the training's, in words.
        place: Where the network is least certain, in words; empty where there is no picture.
        picture: Base64 PNG through that place.
        size: Width and height of the picture in pixels.
        findings: Components of the structures that were asked for.
    """

    row: CaseReview
    differences: tuple[str, ...] = ()
    place: str = ""
    picture: str = ""
    size: tuple[int, int] = (0, 0)
    findings: tuple[StructureFindings, ...] = ()


@dataclass(frozen=True)
class PredictedCase:
    """What is predicted of a case; one entry a structure, in the order of the case's row.

    Attributes:
        dice: NaN for a structure that was not segmented, or of which nothing was learned.
        volume: In the unit of the case; NaN where it was learned in another.
        present: Probability that the structure is in the scan; NaN where nothing was learned.
    """

    dice: tuple[Prediction, ...]
    volume: tuple[Prediction, ...]
    present: tuple[float, ...] = ()

    @property
    def nothing_there(self) -> bool:
        """Whether every structure is more probably absent from the scan than in it."""
        return bool(self.present) and all(p < LIKELY for p in self.present)  # NaN is not

    @property
    def lowest_dice(self) -> float:
        """Smallest predicted Dice; NaN if there is none."""
        return min((p.estimate for p in self.dice if not math.isnan(p.estimate)), default=math.nan)


def in_order(reviews: Sequence[CaseReview], predicted: Mapping[str, PredictedCase] | None = None) -> list[CaseReview]:
    """The cases that need a look most first.

    Empty predictions come before all others, those with the largest probability of any structure first: there the
    network was nearest to predicting something. The others follow by their lowest expected Dice, rising; also where
    predicted Dice is known: on the validation cases of five networks the lowest expected Dice followed the lowest true
    Dice better (Spearman's rho on average 0.59, that of the lowest predicted Dice 0.47). Empty predictions of scans in
    which nothing is to be expected come last.

    Args:
        reviews: The cases.
        predicted: What is predicted of each; None where nothing is known.
    """

    def key(review: CaseReview) -> tuple:
        if review.empty and predicted and predicted[review.case].nothing_there:
            return (2, -max(predicted[review.case].present), review.case)
        if review.empty:
            return (0, -max(structure.max_probability for structure in review.structures), review.case)
        return (1, review.lowest_expected_dice, review.case)

    return sorted(reviews, key=key)


def review_csv_texts(
    reviews: Sequence[CaseReview],
    members: Sequence[str],
    problems: Mapping[str, str] | None = None,
    predicted: Mapping[str, PredictedCase] | None = None,
    reasons: Mapping[str, Sequence[str]] | None = None,
) -> tuple[str, str]:
    """The list as CSV, one row a case: what a reader needs, and all else. A cell is empty where a number is undefined.

    Args:
        reviews: In the order of the rows.
        members: Names of the folders; with two or more each structure has a column for each.
        problems: Why other cases could not be done. Each has a row without a rank at the end: whoever works through
            the list must not miss them.
        predicted: What is predicted of each case; more columns.
        reasons: Why each case needs a look, in words: a case with any has a flag.

    Returns:
        Content of review.csv, and of review_details.csv, which has the same rows.
    """
    rows, details = [], []
    for rank, review in enumerate(reviews, 1):
        row: dict[str, Any] = {"rank": rank, "case": review.case}
        empty = {"empty": "yes" if review.empty else "no", "empty_structures": "; ".join(review.empty_structures)}
        more: dict[str, Any] = {**row, **empty}
        if reasons is not None:
            why = reasons[review.case]
            row |= {"flag": "yes" if why else "no", "reasons": "; ".join(why)}
        row["problem"] = None
        found = predicted[review.case] if predicted else None
        if found:
            more["lowest_predicted_dice"] = found.lowest_dice
        more |= review.columns()
        for i, structure in enumerate(review.structures):
            name, size = structure.name, f"predicted_{size_word(review.unit)}"
            if found:
                dice, volume = found.dice[i], found.volume[i]
                row[f"{name} predicted_dice"] = dice.estimate
                row |= {f"{name} predicted_dice_{end}": getattr(dice, end) for end in ("low", "high")}
                more[f"{name} {size}_{review.unit}"] = volume.estimate
            row |= {f"{name} {column}": value for column, value in structure.summary(review.unit).items()}
            if found:
                row |= {f"{name} {size}_{end}_{review.unit}": getattr(volume, end) for end in ("low", "high")}
                if found.present and not math.isnan(found.present[i]):
                    row[f"{name} present_probability"] = found.present[i]
            more |= {f"{name} {column}": value for column, value in structure.columns(review.unit, members).items()}
        rows.append(row)
        details.append(more)
    rows += [{"rank": None, "case": case, "problem": problem} for case, problem in (problems or {}).items()]
    details += [{"rank": None, "case": case} for case in problems or {}]
    return _csv_text(rows), _csv_text(details)


def _csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of rows that may lack columns; numbers with six digits."""
    header = list(dict.fromkeys(column for row in rows for column in row))
    cells = ([row.get(column) for column in header] for row in rows)
    return to_csv_text(header, ([float(f"{x:.6g}") if isinstance(x, float) else x for x in row] for row in cells))


def volume_text(value: float, digits: int = 3) -> str:
    """A volume, or area, with so many significant digits, and never as a power of ten: ``1040``, ``0.25``."""
    return np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")
