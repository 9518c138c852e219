"""The list of cases to look at first: one row a case, the one that is expected to be worst on top."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev
from typing import Any

import numpy as np

from nnunet_nacl.calibration.dice_estimate import Prediction
from nnunet_nacl.documents.finding_list import StructureFindings
from nnunet_nacl.files import to_csv_text

__all__ = [
    "LIKELY",
    "CaseReview",
    "FinishedCase",
    "PredictedCase",
    "StructureReview",
    "in_order",
    "review_csv_text",
    "volume_text",
]

_NUMBERS = (
    "lowest_expected_dice",
    "mean_foreground_entropy",
    "mean_foreground_confidence",
    "mean_foreground_mutual_information",
    "n_members",
)

LIKELY = 0.5
"""From this probability on a structure is taken to be in a scan."""


@dataclass(frozen=True)
class StructureReview:
    """One structure in one case.

    Attributes:
        name: Its name in dataset.json.
        expected_dice: Of the segmentation, as :func:`nnunet_nacl.metrics.expected_dice.expected_dice` has it; NaN
            where the structure was not predicted.
        members_dice: Mean Dice between the segmentations of two members, over all pairs that have the structure in at
            least one of them; NaN with one member, or without such a pair.
        volume: Of the predicted structure, in the case's unit.
        expected_volume: Sum of the structure's probabilities over all voxels, times the size of a voxel.
        max_probability: Its largest probability anywhere in the image: how near an empty structure came to being
            predicted.
        pieces: Connected pieces of the prediction; voxels that touch at a corner are connected.
        largest_piece: Share of the structure's voxels in the largest of them; NaN where it was not predicted.
        member_volumes: Of each member's own prediction, in the order of the folders.
        network: Expected volume and largest probability as the network gave them, before any map: what the presence of
            the structure is learned from.
    """

    name: str
    expected_dice: float
    members_dice: float
    volume: float
    expected_volume: float
    max_probability: float
    pieces: int
    largest_piece: float
    member_volumes: tuple[float, ...]
    network: tuple[float, float] = (math.nan, math.nan)

    @property
    def volume_sd(self) -> float | None:
        """Sample standard deviation between members; None with one."""
        return stdev(self.member_volumes) if len(self.member_volumes) > 1 else None


@dataclass(frozen=True)
class CaseReview:
    """What the list says about one case.

    Attributes:
        case: Name of the case.
        mean_foreground_entropy: Mean normalised entropy over the voxels of the predicted structures; NaN if there are
            none.
        mean_foreground_confidence: Mean confidence over the same voxels.
        mean_foreground_mutual_information: Likewise; NaN with one member.
        unit: Of the volumes: ``ml``, ``mm2`` in 2D, ``pixels`` without spacing.
        structures: One entry a structure.
        n_members: Number of folders.
    """

    case: str
    mean_foreground_entropy: float
    mean_foreground_confidence: float
    mean_foreground_mutual_information: float
    unit: str
    structures: tuple[StructureReview, ...]
    n_members: int

    @property
    def empty(self) -> bool:
        """Whether nothing at all was predicted."""
        return all(structure.pieces == 0 for structure in self.structures)

    @property
    def empty_structures(self) -> list[str]:
        """Names of the structures that were not predicted."""
        return [structure.name for structure in self.structures if structure.pieces == 0]

    @property
    def lowest_expected_dice(self) -> float:
        """Smallest expected Dice of the structures that were predicted; NaN if there are none."""
        return min((s.expected_dice for s in self.structures if s.pieces), default=math.nan)


@dataclass(frozen=True)
class FinishedCase:
    """What is kept of a case that is written, for the lists.

    Attributes:
        row: Of the list.
        unlike: How its image differs from the training's, in words.
        place: Where the network is least certain, in words; empty where there is no picture.
        picture: Base64 PNG through that place.
        size: Width and height of the picture in pixels.
        findings: Components of the structures that were asked for.
    """

    row: CaseReview
    unlike: tuple[str, ...] = ()
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


def review_csv_text(
    reviews: Sequence[CaseReview],
    members: Sequence[str],
    problems: Mapping[str, str] | None = None,
    predicted: Mapping[str, PredictedCase] | None = None,
    reasons: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The list as CSV, one row a case. A cell is empty where a number is not defined.

    Args:
        reviews: In the order of the rows.
        members: Names of the folders; with two or more each structure has a column for each.
        problems: Why other cases could not be done. Each has a row without a rank at the end: whoever works through
            the list must not miss them.
        predicted: What is predicted of each case; more columns.
        reasons: Why each case needs a look, in words: a case with any has a flag.
    """
    rows = []
    for rank, review in enumerate(reviews, 1):
        empty = {"empty": "yes" if review.empty else "no", "empty_structures": "; ".join(review.empty_structures)}
        row: dict[str, Any] = {"rank": rank, "case": review.case, **empty, "problem": None}
        if reasons is not None:
            why = reasons[review.case]
            row |= {"flag": "yes" if why else "no", "reasons": "; ".join(why)}
        if predicted:
            row["lowest_predicted_dice"] = predicted[review.case].lowest_dice
        row |= {key: getattr(review, key) for key in _NUMBERS}
        for i, structure in enumerate(review.structures):
            columns = {}
            if predicted:
                found = predicted[review.case]
                columns = _predicted_columns(found.dice[i], found.volume[i], review.unit)
                if found.present and not math.isnan(found.present[i]):
                    columns["present_probability"] = found.present[i]
            columns |= _columns(structure, review.unit, members)
            row |= {f"{structure.name} {column}": value for column, value in columns.items()}
        rows.append({key: float(f"{cell:.6g}") if isinstance(cell, float) else cell for key, cell in row.items()})
    rows += [{"case": case, "problem": problem} for case, problem in (problems or {}).items()]
    header = list(dict.fromkeys(column for row in rows for column in row))
    return to_csv_text(header, ([row.get(column) for column in header] for row in rows))


def _predicted_columns(dice: Prediction, volume: Prediction, unit: str) -> dict[str, float]:
    names = {"predicted_dice{}": dice, f"predicted_{_size(unit)}{{}}_{unit}": volume}
    ends = {"": "estimate", "_low": "low", "_high": "high"}
    return {name.format(end): getattr(found, part) for name, found in names.items() for end, part in ends.items()}


def _columns(structure: StructureReview, unit: str, members: Sequence[str]) -> dict[str, Any]:
    size, volumes, several = _size(unit), structure.member_volumes, len(structure.member_volumes) > 1
    return {
        "expected_dice": structure.expected_dice,
        "members_dice": structure.members_dice,
        f"{size}_{unit}": structure.volume,
        f"expected_{size}_{unit}": structure.expected_volume,
        f"{size}_sd_{unit}": structure.volume_sd,
        f"{size}_min_{unit}": min(volumes) if several else None,
        f"{size}_max_{unit}": max(volumes) if several else None,
        "pieces": structure.pieces,
        "largest_piece": structure.largest_piece,
        "max_probability": structure.max_probability,
        **({f"{size}_{unit} {name}": volume for name, volume in zip(members, volumes)} if several else {}),
    }


def _size(unit: str) -> str:
    return "volume" if unit == "ml" else "area"


def volume_text(value: float, digits: int = 3) -> str:
    """A volume, or area, with so many significant digits, and never as a power of ten: ``1040``, ``0.25``."""
    return np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")
