"""What the review list says of a case: its columns, and how they are measured.

A new column is a field of the row, its value in :func:`make_row`, and a line in ``columns`` of its class: of
:class:`StructureReview` for structures.csv, of :class:`CaseReview` for scans.csv.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import stdev
from typing import Any

import numpy as np
from pydantic import NonNegativeInt

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.case_quality import QualitySums
from nnunet_nacl.case.findings import label_components
from nnunet_nacl.json_files import Number, Share, Size
from nnunet_nacl.numbers.scan_score import structure_score
from nnunet_nacl.numbers.voxel_uncertainty import Disagreement

_COLUMNS = (
    "score",
    "lowest_predicted_dice",
    "mean_foreground_entropy",
    "mean_foreground_confidence",
    "mean_foreground_mutual_information",
    "n_members",
)
_UNKNOWN = (math.nan, math.nan)

LIKELY = 0.5
"""From this probability on a structure is taken to be in a scan."""


@dataclass(frozen=True)
class StructureReview:
    """One structure in one case.

    Attributes:
        name: Its name in dataset.json.
        predicted_dice: What the probabilities say, as :func:`nnunet_nacl.numbers.expected_dice.expected_dice` has it;
            NaN where the structure was not segmented.
        members_dice: Mean Dice between the segmentations of two members, over all pairs that have the structure in at
            least one of them; NaN with one member, or without such a pair.
        volume: Of the segmented structure, in the case's unit.
        predicted_volume: Sum of the structure's probabilities over all voxels, times the size of a voxel.
        max_probability: Its largest probability anywhere in the image: how near an empty structure came to being
            predicted.
        pieces: Connected pieces of the prediction; voxels that touch at a corner are connected.
        largest_piece: Share of the structure's voxels in the largest of them; NaN where it was not predicted.
        member_volumes: Of each member's own prediction, in the order of the folders.
        network: Expected volume, and the largest expected Dice that any set of voxels has, of the probabilities as the
            network gave them, before any map: what the presence of the structure is learned from.
        dice_interval: 90 % interval of the true Dice, as a map learned it; NaN where nothing is known.
        volume_interval: The same of the true volume.
        present: Probability that the structure is in the scan; NaN where nothing was learned.
        says_nothing: Whether on held-out patients a constant was as near to the true Dice as the predicted one.
        always: Whether all calibration scans have the structure.
        bad: The Dice below which it is bad, 0 where nobody said; NaN where the structure does not count.
    """

    name: str
    predicted_dice: Share
    members_dice: Share
    volume: Size
    predicted_volume: Size
    max_probability: Share
    pieces: NonNegativeInt
    largest_piece: Share
    member_volumes: tuple[Size, ...]
    network: tuple[Size, Share] = _UNKNOWN
    dice_interval: tuple[Number, Number] = _UNKNOWN
    volume_interval: tuple[Number, Number] = _UNKNOWN
    present: Share = math.nan
    says_nothing: bool = False
    always: bool = False
    bad: Number = 0.0

    @property
    def score(self) -> float:
        """The Dice that it can expect less what is bad, see :mod:`nnunet_nacl.numbers.scan_score`; else NaN."""
        return float(structure_score(self.predicted_dice, self.present, self.always, self.says_nothing)) - self.bad

    @property
    def volume_sd(self) -> float | None:
        """Sample standard deviation between members; None with one."""
        return stdev(self.member_volumes) if len(self.member_volumes) > 1 else None

    def columns(self, unit: str, members: Sequence[str]) -> dict[str, Any]:
        """Columns of structures.csv; with several members the volume of each."""
        size, volumes, several = size_word(unit), self.member_volumes, len(self.member_volumes) > 1
        (low, high), (smallest, largest) = self.dice_interval, self.volume_interval
        return {
            "predicted_dice": self.predicted_dice,
            "predicted_dice_low": low,
            "predicted_dice_high": high,
            "score": self.score,
            "no_better_than_constant": "yes" if self.says_nothing else None,
            f"{size}_{unit}": self.volume,
            f"predicted_{size}_{unit}": self.predicted_volume,
            f"predicted_{size}_low_{unit}": smallest,
            f"predicted_{size}_high_{unit}": largest,
            "present_probability": self.present,
            "members_dice": self.members_dice,
            f"{size}_sd_{unit}": self.volume_sd,
            f"{size}_min_{unit}": min(volumes) if several else None,
            f"{size}_max_{unit}": max(volumes) if several else None,
            "pieces": self.pieces,
            "largest_piece": self.largest_piece,
            "max_probability": self.max_probability,
            **({f"{size}_{unit} {name}": volume for name, volume in zip(members, volumes)} if several else {}),
        }


@dataclass(frozen=True)
class CaseReview:
    """What the list says about one case.

    Attributes:
        case: Name of the case.
        mean_foreground_entropy: Mean normalised entropy over the voxels of the segmented structures; NaN if there are
            none.
        mean_foreground_confidence: Mean confidence over the same voxels.
        mean_foreground_mutual_information: Mean mutual information over the same voxels; NaN with one member.
        unit: Of the volumes: ``ml``, ``mm2`` in 2D, ``pixels`` without spacing.
        structures: One entry a structure.
        n_members: Number of folders.
        unlike_p: How probable so odd an image is among scans like the calibration scans; NaN where that is not known.
        unlike: What is odd about it, in words, where it is unlike them: nothing learned from them is supported here.
    """

    case: str
    mean_foreground_entropy: Share
    mean_foreground_confidence: Share
    mean_foreground_mutual_information: Share
    unit: str
    structures: tuple[StructureReview, ...]
    n_members: NonNegativeInt
    unlike_p: Share = math.nan
    unlike: str = ""

    def __post_init__(self) -> None:
        if not self.structures:  # as in a record that was edited
            raise ValueError("there is no structure.")

    @property
    def empty(self) -> bool:
        """Whether nothing at all was predicted."""
        return all(structure.pieces == 0 for structure in self.structures)

    @property
    def empty_structures(self) -> list[str]:
        """Names of the structures that were not predicted."""
        return [structure.name for structure in self.structures if structure.pieces == 0]

    @property
    def lowest_predicted_dice(self) -> float:
        """Smallest of the structures that were segmented; NaN if there are none."""
        return min((s.predicted_dice for s in self.structures if s.pieces), default=math.nan)

    @cached_property
    def worst_first(self) -> list[StructureReview]:
        """The structures by score, those without one by predicted Dice; last those of which nothing is known."""
        return sorted(self.structures, key=lambda s: [math.inf if x != x else x for x in (s.score, s.predicted_dice)])

    @property
    def score(self) -> float:
        """Smallest of its structures; NaN where none has one."""
        return self.worst_first[0].score

    def columns(self) -> dict[str, Any]:
        """Columns of scans.csv."""
        empty = {"empty": "yes" if self.empty else "no", "empty_structures": "; ".join(self.empty_structures)}
        unlike = {"unlike_p": self.unlike_p, "unlike": self.unlike}
        return {**empty, **{name: getattr(self, name) for name in _COLUMNS}, **unlike}


def make_row(case: Case, sums: QualitySums, members: Disagreement | None) -> CaseReview:
    """The row of a case; what a structure that was not segmented has no value for is NaN.

    Args:
        case: The case; ignored voxels, which only a truth has, play no part.
        sums: Over its probabilities and its segmentation, wherever a network saw it.
        members: What those of the ensemble disagree about; None with one.
    """
    labels, size, overlap, means = case.labels, case.geometry.voxel_size, sums.overlap, sums.means
    volumes = overlap.chosen[None] * size if members is None else members.voxels * size
    structures, dice, largest_dice = [], overlap.dice, sums.network.largest_dice
    for i, channel in enumerate(labels.foreground):
        pieces = np.bincount(label_components(labels.mask(case.segmentation, channel))[1].ravel())[1:]  # voxels of each
        structures.append(
            StructureReview(
                name=labels.names[channel],
                predicted_dice=float(dice[i]),
                members_dice=float(members.dice[i]) if members else math.nan,
                volume=int(overlap.chosen[i]) * size,
                predicted_volume=float(overlap.expected[i]) * size,
                max_probability=float(sums.largest[i]),
                pieces=len(pieces),
                largest_piece=float(pieces.max() / pieces.sum()) if len(pieces) else math.nan,
                member_volumes=tuple(float(of_member[i]) for of_member in volumes),
                network=(float(sums.network.expected[i]) * size, float(largest_dice[i])),
            )
        )
    return CaseReview(
        case=case.name,
        mean_foreground_entropy=means["entropy"],
        mean_foreground_confidence=means["confidence"],
        mean_foreground_mutual_information=members.foreground_mutual_information if members else math.nan,
        unit=case.geometry.unit,
        structures=tuple(structures),
        n_members=len(volumes),
    )


def volume_text(value: float, digits: int = 3) -> str:
    """A volume, or area, with so many significant digits, and never as a power of ten: ``1040``, ``0.25``."""
    return np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")


def size_word(unit: str) -> str:
    """What a size is in this unit: ``volume``, or ``area`` of 2D images."""
    return "volume" if unit == "ml" else "area"
