"""Connected components of a structure, with volume, centre and probabilities, as findings.csv lists them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt
from scipy import ndimage

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.probabilities import Box, common_box
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import CsvColumn
from nnunet_nacl.json_types import Number, Share, Size
from nnunet_nacl.metrics.overlap import bounding_box

FINDINGS = "findings.csv"
MOST_FINDINGS = 100
"""Of a structure in a case; of more, the largest are listed."""
FINDING_COLUMNS = (
    CsvColumn("case", "name", "The scan."),
    CsvColumn("structure", "name", "The structure."),
    CsvColumn("finding", "from 1", "Number of the connected part; the largest is 1."),
    CsvColumn("{size}_{unit}", "{unit}", "Voxels times voxel size."),
    CsvColumn(
        "centre_x_{length}", "{length}", "Mean of the voxels' centres, x to the left, as in DICOM and SimpleITK."
    ),
    CsvColumn("centre_y_{length}", "{length}", "The same, y to the back. NIfTI viewers show -x and -y."),
    CsvColumn("centre_z_{length}", "{length}", "The same, z to the head; empty in 2D."),
    CsvColumn("mean_probability", "0 to 1", "Of the structure, over the part's voxels; calibrated with a map."),
    CsvColumn("max_probability", "0 to 1", "The largest there."),
    CsvColumn("voxels", "number", "Voxels that touch at a corner are connected."),
)


@dataclass(frozen=True)
class Finding:
    """One connected component of one structure, see :data:`FINDING_COLUMNS`.

    ``centre_mm`` is (x, y, z), in 2D (x, y); of images without coordinates it is the index times the spacing.
    """

    voxels: NonNegativeInt
    volume: Size
    centre_mm: tuple[Number, ...]
    mean_probability: Share
    max_probability: Share


@dataclass(frozen=True)
class StructureFindings:
    """The components of a structure, named so: those ``found``, the largest first, and ``n_more`` smaller ones."""

    name: str
    found: tuple[Finding, ...] = ()
    n_more: int = 0


def label_components(mask: np.ndarray) -> tuple[Box | None, np.ndarray]:
    """The box that holds a mask, None if it is empty, and the number of each connected component there, from 1."""
    box = bounding_box(mask)
    if box is None:
        return None, np.zeros(0, np.int32)
    return box, ndimage.label(mask[box], structure=np.ones((3,) * mask.ndim))[0]


def finding_channels(labels: Labels, wanted: Sequence[str] | None, listed: Sequence[str] = ()) -> tuple[int, ...]:
    """Channels of the structures whose components are findings.

    Args:
        labels: The structures.
        wanted: Their names or nnU-Net's keys; an empty list for all, None for those that are ``listed``.
        listed: nnU-Net's keys of those that a calibration map names.

    Raises:
        UserError: There is no such structure.
    """
    keys = {labels.key(channel): channel for channel in labels.foreground}
    if wanted is None:
        return tuple(channel for key, channel in keys.items() if key in listed)
    names = {labels.names[channel]: channel for channel in labels.foreground}
    if unknown := [name for name in wanted if name not in keys | names]:
        raise UserError(f"there is no structure {unknown[0]!r} to find; there are {', '.join(names)}.")
    return tuple(sorted({(keys | names)[name] for name in wanted})) or labels.foreground


class Components:
    """Of the structure of one channel of a case, whose probabilities come block by block."""

    def __init__(self, case: Case, channel: int) -> None:
        self._channel, self._name, self._geometry = channel, case.labels.names[channel], case.geometry
        self._box, self._numbers = label_components(case.labels.mask(case.segmentation, channel))
        self._probs = np.zeros(self._numbers.shape, np.float32)

    def add(self, where: Box, probs: np.ndarray) -> None:
        """Take the (C, *block) probabilities of a box of the image."""
        if shared := self._box and common_box(where, self._box):
            block, own = shared
            self._probs[own] = probs[self._channel][block]

    def findings(self) -> StructureFindings:
        """What was found, once all blocks have been taken."""
        if self._box is None:
            return StructureFindings(self._name)
        sizes = np.bincount(self._numbers.ravel())[1:]
        order = 1 + np.argsort(-sizes, kind="stable")[:MOST_FINDINGS]
        of_each: Any = (self._probs, self._numbers, order)
        means, largest = ndimage.mean(*of_each).tolist(), ndimage.maximum(*of_each).tolist()
        found, boxes = [], ndimage.find_objects(self._numbers)
        for number, mean, most in zip(order.tolist(), means, largest):
            box, size = boxes[number - 1], int(sizes[number - 1])
            starts = [part.start + whole.start for part, whole in zip(box, self._box)]
            inside = np.argwhere(self._numbers[box] == number).mean(axis=0)
            centre = _in_space(inside + starts, self._geometry)
            found.append(Finding(size, float(size * self._geometry.voxel_size), centre, mean, most))
        return StructureFindings(self._name, tuple(found), len(sizes) - len(found))


def _in_space(centre: np.ndarray, geometry: Geometry) -> tuple[float, ...]:
    """Coordinates in mm, (x, y, z) or (x, y), of an index in the order of the axes."""
    spacing, affine = np.array(geometry.spacing_mm[::-1]), geometry.affine
    if affine is None:
        affine = np.diag([*(spacing[:2] if geometry.is_2d else spacing), 1.0])
    index = centre[::-1][: len(affine) - 1]  # nnU-Net's first axis of 2D images is in no coordinates
    return tuple((affine[:-1, :-1] @ index + affine[:-1, -1]).tolist())


def findings_table(cases: Mapping[str, Sequence[StructureFindings]], unit: str) -> pd.DataFrame:
    """findings.csv: one row a finding, cases in the order given."""
    size, length = "volume" if unit == "ml" else "area", "pixels" if unit == "pixels" else "mm"
    header = [column.name.format(size=size, unit=unit, length=length) for column in FINDING_COLUMNS]
    rows = [
        (case, structure.name, number, one.volume, *[*one.centre_mm, math.nan][:3])
        + (one.mean_probability, one.max_probability, one.voxels)
        for case, structures in cases.items()
        for structure in structures
        for number, one in enumerate(structure.found, 1)
    ]
    return pd.DataFrame(rows, columns=header)
