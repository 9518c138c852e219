"""What a reader is told of a case: its row of the review list, the place to look at first, and maps."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.case_quality import QualitySums
from nnunet_nacl.case.findings import Components, StructureFindings, label_components
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import Number
from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.voxel_uncertainty import (
    Disagreement,
    Place,
    confidence,
    label_confidence,
    least_certain_place,
    normalised_entropy,
)

_OUTSIDE = {"confidence": 1.0, "entropy": 0.0}
"""Value of a map outside nnU-Net's crop, where all is background for certain."""

_OF_FOLDS = "mutual_information"
"""The map that compares folds; 0 outside the crop."""

MAPS = (*_OUTSIDE, _OF_FOLDS)

PROBABILITIES = "probabilities"
"""Stands for a map of every class or region: ``probability_<channel>_<name>``."""


def choose_maps(wanted: Sequence[str], n_folds: int = 1) -> tuple[str, ...]:
    """Names of the maps to write; UserError for one that there is not, or that compares folds where there is one.

    Args:
        wanted: Some of ``MAPS``, or ``PROBABILITIES``; none for all of ``MAPS`` that there can be.
        n_folds: Whose networks are averaged.
    """
    for name in wanted:
        if name not in (*MAPS, PROBABILITIES):
            raise UserError(f"there is no map {name!r}; there are {', '.join((*MAPS, PROBABILITIES))}.")
        if name == _OF_FOLDS and n_folds == 1:
            raise UserError(f"the map {name} compares folds: predict with several (nnunet_nacl predict -f).")
    return tuple(dict.fromkeys(wanted)) or MAPS[: 2 if n_folds == 1 else 3]


@dataclass(frozen=True)
class FinishedCase:
    """What is kept of a case for the lists.

    Attributes:
        case: Name of the case.
        rows: By nnU-Net's key of each structure what is measured of it.
        scan: Values of the case as a whole.
        differences: How its image differs from the training's, in words.
        findings: Components of the structures that were asked for.
        place: Where the network is least certain, in words; empty where there is no picture.
        picture: Base64 PNG through that place.
        size: Width and height of the picture in pixels.
        image: File of its first channel, of a DICOM series its first; empty where it is not known.
        profile: What the scan looks like, see :mod:`nnunet_nacl.nnunet.profile`; empty where no image was read.
    """

    case: str
    rows: dict[str, dict[str, int | Number | str]]
    scan: dict[str, int | Number | str]
    differences: tuple[str, ...] = ()
    findings: tuple[StructureFindings, ...] = ()
    place: str = ""
    picture: str = ""
    size: tuple[int, int] = (0, 0)
    image: str = ""
    profile: tuple[Number, ...] = ()

    @property
    def structures(self) -> pd.DataFrame:
        """See :func:`nnunet_nacl.case.table.table`."""
        return pd.DataFrame.from_dict(self.rows, orient="index")

    @property
    def bins(self) -> dict[str, BinStats]:
        """None: there is no ground truth."""
        return {}


@dataclass(frozen=True, eq=False)
class ReviewedCase:
    """What is delivered of a case; arrays in the axis order of nnU-Net's reader.

    Attributes:
        case: With the segmentation that is delivered.
        place: The voxel where the network is least certain.
        doubt: (*spatial) 1 less the confidence of each voxel, see
            :func:`~nnunet_nacl.numbers.voxel_uncertainty.confidence`; 0 outside nnU-Net's crop.
        maps: (*spatial) float32 by name.
        finished: What is kept of it, as yet without a picture.
    """

    case: Case
    place: Place
    doubt: np.ndarray
    maps: dict[str, np.ndarray]
    finished: FinishedCase


def review_case(
    case: Case,
    *,
    members: Disagreement | None = None,
    member_names: Sequence[str] = (),
    maps: Sequence[str] = (),
    differences: Sequence[str] = (),
    findings: Sequence[int] = (),
) -> ReviewedCase:
    """Look at a case as it is to be delivered. No truth is needed, and none is used.

    Args:
        case: With its segmentation and probabilities.
        members: What the folds disagree about whose mean these probabilities are; None for one network.
        member_names: Names of the folds, in their order.
        maps: Some of ``MAPS``, or ``PROBABILITIES``.
        differences: How the image differs from the training's.
        findings: Channels of the structures whose components are to be listed.

    Raises:
        ValueError: The case has no probabilities, or they are not probabilities.
    """
    labels, source = case.labels, case.probabilities
    made, doubt = _empty_maps(case, maps, members), np.zeros(source.shape, np.float32)
    sums, components = QualitySums(labels), [Components(case, channel) for channel in findings]
    for where in source.boxes(source.box):
        (probs, network), inside = source.beside_network(where), case.segmentation[where]
        sums.add(probs, inside, network=network)
        for structure in components:
            structure.add(where, probs)
        doubt[where] = 1 - confidence(probs, regions=labels.regions, check_values=False)
        if "confidence" in made:
            made["confidence"][where] = label_confidence(probs, labels.channels_of(inside), regions=labels.regions)
        if "entropy" in made:
            made["entropy"][where] = normalised_entropy(probs, regions=labels.regions, check_values=False)
        for channel, name in enumerate(_names(labels) if PROBABILITIES in maps else ()):
            made[name][where] = probs[channel]
    place = least_certain_place(doubt, source.in_box, labels.foreground, case.spacing_mm)
    rows, scan = _measured(case, sums, members, member_names)
    found = tuple(structure.findings() for structure in components)
    return ReviewedCase(case, place, doubt, made, FinishedCase(case.name, rows, scan, tuple(differences), found))


def _measured(
    case: Case, sums: QualitySums, members: Disagreement | None, names: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Rows of the structures, and what is known of the whole; NaN where a structure was not segmented."""
    labels, size, overlap = case.labels, case.geometry.voxel_size, sums.overlap
    rows, dice, largest_dice = {}, overlap.dice, sums.network.largest_dice
    for i, channel in enumerate(labels.foreground):
        pieces = np.bincount(label_components(labels.mask(case.segmentation, channel))[1].ravel())[1:]  # voxels of each
        volumes = () if members is None else members.voxels[:, i] * size
        rows[labels.key(channel)] = {
            "name": labels.names[channel],
            "predicted_dice": float(dice[i]),
            "predicted_volume": float(overlap.expected[i]) * size,
            "volume": int(overlap.chosen[i]) * size,
            "pieces": len(pieces),
            "largest_piece": float(pieces.max() / pieces.sum()) if len(pieces) else math.nan,
            "max_probability": float(sums.largest[i]),
            "network_volume": float(sums.network.expected[i]) * size,
            "network_dice": float(largest_dice[i]),
            "members_dice": float(members.dice[i]) if members else math.nan,
            **{f"volume {name}": float(volume) for name, volume in zip(names, volumes)},
        }
    scan = {
        "unit": case.geometry.unit,
        "voxel_volume": size,
        **sums.means,
        "n_members": 1,
        "mutual_information": math.nan,
    }
    if members:
        scan |= {"n_members": len(members.voxels), "mutual_information": members.foreground_mutual_information}
    return rows, scan


def _empty_maps(case: Case, maps: Sequence[str], members: Disagreement | None) -> dict[str, np.ndarray]:
    """The maps as they are outside the crop; the one that compares folds is whole."""
    shape, made = case.segmentation.shape, dict[str, np.ndarray]()
    for name in maps:
        if name == _OF_FOLDS:
            made[name] = members.mutual_information if members else np.zeros(shape, np.float32)
        elif name == PROBABILITIES:
            background = "" if case.labels.regions else _names(case.labels)[0]
            made |= {each: np.full(shape, each == background, np.float32) for each in _names(case.labels)}
        else:
            made[name] = np.full(shape, _OUTSIDE[name], np.float32)
    return made


def _names(labels: Labels) -> list[str]:
    """Of the maps of single channels."""
    plain = (re.sub(r"[^A-Za-z0-9.-]+", "-", structure).strip("-.") for structure in labels.names)
    return [f"probability_{channel}_{name}" for channel, name in enumerate(plain)]
