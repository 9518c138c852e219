"""Where a network is uncertain, voxel by voxel: images that are written, and the least certain
voxels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.probabilities import Box
from nnunet_nacl.estimators.log_odds_map import LogOddsMap
from nnunet_nacl.estimators.recall import sensitive_labels
from nnunet_nacl.metrics.voxel_uncertainty import (
    VarianceByBlock,
    confidence,
    label_confidence,
    normalised_entropy,
)
from nnunet_nacl.utilities.errors import UserError

_MUTUAL_INFORMATION = "mutual_information"
"""The uncertainty image that compares networks."""

_OUTSIDE_CROP = {"confidence": 1.0, "entropy": 0.0, _MUTUAL_INFORMATION: 0.0}
"""Value of each uncertainty image outside nnU-Net's crop, where all is background for certain."""

MAPS = tuple(_OUTSIDE_CROP)

PROBABILITIES = "probabilities"
"""Stands for an image of every class or region: ``probability_<channel>_<name>``."""

FRACTIONAL = "fractional"
"""Stands for the same images, which of DICOM series become a fractional segmentation instead of
parametric maps."""


def choose_maps(wanted: Sequence[str], n_networks: int = 1) -> tuple[str, ...]:
    """Names of the uncertainty images to write.

    Those ``wanted``, or all of ``MAPS`` that so many networks have.

    Raises:
        UserError: For one that is none of ``MAPS``, ``PROBABILITIES`` and ``FRACTIONAL``, or that
            compares networks where there is one.
    """
    known = (*MAPS, PROBABILITIES, FRACTIONAL)
    for name in wanted:
        if name not in known:
            raise UserError(f"there is no map {name!r}; there are {', '.join(known)}.")
        if name == _MUTUAL_INFORMATION and n_networks == 1:
            raise UserError(f"the map {name} compares folds: predict with several, [[folds]].")
    if wanted:
        return tuple(dict.fromkeys(wanted))
    if n_networks == 1:
        return tuple(name for name in MAPS if name != _MUTUAL_INFORMATION)
    return MAPS


@dataclass(eq=False)
class VoxelUncertainty:
    """Where a network is uncertain, voxel by voxel, and its sensitive labels.

    Arrays are in the axis order of nnU-Net's reader.

    Attributes:
        images: (*spatial) float32 uncertainty images by name; ``confidence`` is that of the label
            that the segmentation has.
        uncertainty: (*spatial) 1 minus the confidence of each voxel, whatever its label; 0 outside
            nnU-Net's crop.
        limits: Of each structure, see :func:`~nnunet_nacl.estimators.recall.sensitive_labels`;
            empty for none.
        sensitive: What that makes of the case: (*spatial) label map or (R, *spatial) regions; None
            without limits.
        variance: By block of the image, how uncertain each structure is.
    """

    images: dict[str, np.ndarray]
    uncertainty: np.ndarray
    variance: VarianceByBlock
    limits: Sequence[float] = ()
    sensitive: np.ndarray | None = None

    @classmethod
    def of(cls, case: Case, names: Sequence[str], limits: Sequence[float] = ()) -> VoxelUncertainty:
        """Images that hold the values of certain background, to be filled by :meth:`add`.

        So they are right outside nnU-Net's crop. The image that compares networks is taken from the
        case as a whole, and the sensitive labels begin as those of the segmentation.

        Args:
            case: Whose probabilities will be given to :meth:`add`.
            names: Uncertainty images, as :func:`choose_maps` gives them.
            limits: See the attribute.
        """
        shape = case.segmentation.shape
        probability_images = _probability_images(case.labels)
        outside_crop = {**_OUTSIDE_CROP, **dict.fromkeys(probability_images, 0.0)}
        if not case.labels.regions:
            outside_crop[probability_images[0]] = 1.0  # of the background
        images = {}
        for name in names_of_images(case.labels, names):
            images[name] = np.full(shape, outside_crop[name], np.float32)
        if _MUTUAL_INFORMATION in images and case.disagreement:
            images[_MUTUAL_INFORMATION] = case.disagreement.mutual_information
        return cls(
            images,
            uncertainty=np.zeros(shape, np.float32),
            variance=VarianceByBlock(len(probability_images), shape, case.spacing_mm),
            limits=limits,
            sensitive=case.labels.channels_of(case.segmentation).copy() if limits else None,
        )

    def add(
        self,
        where: Box,
        probs: np.ndarray,
        raw: np.ndarray,
        segmentation: np.ndarray,
        labels: Labels,
    ) -> None:
        """Take a box of the image.

        Args:
            where: The box.
            probs: (C, *block) probabilities.
            raw: (C, *block) the network's own.
            segmentation: (*block) label map.
            labels: Of the case.
        """
        delivered = labels.channels_of(segmentation)
        if self.sensitive is not None:
            box: Any = (..., *where)
            self.sensitive[box] = sensitive_labels(raw, delivered, self.limits, labels.regions)
        self.uncertainty[where] = 1 - confidence(probs, regions=labels.regions)
        self.variance.add(where, probs)
        if "confidence" in self.images:  # of the label that is delivered
            self.images["confidence"][where] = label_confidence(
                probs, delivered, regions=labels.regions
            )
        if "entropy" in self.images:
            self.images["entropy"][where] = normalised_entropy(probs, regions=labels.regions)
        for name, values in zip(_probability_images(labels), probs):
            if name in self.images:
                self.images[name][where] = values

    def least_certain_places(
        self, case: Case, structures: Sequence[str], calibration: LogOddsMap | None
    ) -> dict[str, tuple[int, ...]]:
        """By structure the index of its least certain voxel.

        It lies in the block of about 5 mm in which the structure is least certain. A structure of
        which the network is certain everywhere has none.

        Args:
            case: The case that was measured.
            structures: Names, in the order of the result.
            calibration: Map that the probabilities were taken through.
        """
        places = {}
        for name in structures:
            voxel = self.variance.least_certain_voxel(
                case.labels.names.index(name),
                lambda where: case.probabilities.under(calibration, where)[0],
            )
            if voxel is not None:
                places[name] = voxel
        return places


def names_of_images(labels: Labels, names: Sequence[str]) -> list[str]:
    """Names of the images that ``names``, as :func:`choose_maps` gives them, stand for."""
    images: list[str] = []
    for name in names:
        if name in _OUTSIDE_CROP:
            images.append(name)
        else:
            images += _probability_images(labels)
    return list(dict.fromkeys(images))


def _probability_images(labels: Labels) -> list[str]:
    """Names of the images of single channels."""
    return [
        f"probability_{channel}_{plain_name(name)}" for channel, name in enumerate(labels.names)
    ]


def plain_name(structure: str) -> str:
    """The name of a structure as files have it."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", structure).strip("-.")
