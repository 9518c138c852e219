"""What a reader is told of a case: its row of the review list, the place to look at first, and maps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.case_quality import QualitySums
from nnunet_nacl.case.findings import Components, StructureFindings
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import Number
from nnunet_nacl.numbers.voxel_uncertainty import (
    Disagreement,
    Place,
    confidence,
    label_confidence,
    least_certain_place,
    normalised_entropy,
)
from nnunet_nacl.review.row import CaseReview, make_row

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
        row: Of the list.
        differences: How its image differs from the training's, in words.
        findings: Components of the structures that were asked for.
        place: Where the network is least certain, in words; empty where there is no picture.
        picture: Base64 PNG through that place.
        size: Width and height of the picture in pixels.
        image: File of its first channel, of a DICOM series its first; empty where it is not known.
        profile: What the scan looks like, see :mod:`nnunet_nacl.nnunet.profile`; empty where no image was read.
    """

    row: CaseReview
    differences: tuple[str, ...] = ()
    findings: tuple[StructureFindings, ...] = ()
    place: str = ""
    picture: str = ""
    size: tuple[int, int] = (0, 0)
    image: str = ""
    profile: tuple[Number, ...] = ()


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
    maps: Sequence[str] = (),
    differences: Sequence[str] = (),
    findings: Sequence[int] = (),
) -> ReviewedCase:
    """Look at a case as it is to be delivered. No truth is needed, and none is used.

    Args:
        case: With its segmentation and probabilities.
        members: What the folds disagree about whose mean these probabilities are; None for one network.
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
    finished = FinishedCase(
        make_row(case, sums, members), tuple(differences), tuple(one.findings() for one in components)
    )
    return ReviewedCase(case, place, doubt, made, finished)


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
