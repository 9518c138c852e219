"""Connected components of structures: volume, centre, probabilities, as findings.csv lists them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt
from scipy import ndimage

from nnunet_nacl.cases.case import Case, Labels
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.probabilities import Box, common_box, layers_of, whole_box
from nnunet_nacl.metrics.overlap import FoundComponents, count_found, number_components
from nnunet_nacl.utilities.csv_text import CsvColumn
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.json_types import Number, Share, Size

FINDINGS = "findings.csv"
MAX_FINDINGS = 100
"""Of a structure in a case; of more, the largest are listed."""
_PART_VOXELS = 1 << 20  # of a component map that are worked on at a time
FINDING_COLUMNS = (
    CsvColumn("case", "name", "The scan."),
    CsvColumn("structure", "name", "The structure."),
    CsvColumn("finding", "from 1", "Number of the connected part; the largest is 1."),
    CsvColumn("{size}_{unit}", "{unit}", "Voxels times voxel size."),
    CsvColumn(
        "centre_x_{length}",
        "{length}",
        "Mean of the voxels' centres, x to the left, as in DICOM and SimpleITK.",
    ),
    CsvColumn(
        "centre_y_{length}", "{length}", "The same, y to the back. NIfTI viewers show -x and -y."
    ),
    CsvColumn("centre_z_{length}", "{length}", "The same, z to the head; empty in 2D."),
    CsvColumn(
        "mean_probability",
        "0 to 1",
        "Of the structure, over the part's voxels; calibrated with a map.",
    ),
    CsvColumn("max_probability", "0 to 1", "The largest there."),
    CsvColumn("voxels", "number", "Voxels that touch at a corner are connected."),
)


@dataclass(frozen=True)
class Finding:
    """One connected component of one structure, see :data:`FINDING_COLUMNS`.

    ``centre_mm`` is (x, y, z), in 2D (x, y); of images without coordinates it is the index times
    the spacing.
    """

    voxels: NonNegativeInt
    volume: Size
    centre_mm: tuple[Number, ...]
    mean_probability: Share
    max_probability: Share


@dataclass(frozen=True)
class StructureFindings:
    """The components of a structure.

    Attributes:
        name: Of the structure.
        found: The largest :data:`MAX_FINDINGS`, the largest first.
        n_more: How many smaller ones there are.
    """

    name: str
    found: tuple[Finding, ...] = ()
    n_more: int = 0


@dataclass(frozen=True, eq=False)
class Components:
    """Connected components of a mask; voxels that touch at a corner are connected.

    Attributes:
        box: Holds the mask; None if it is empty.
        component_map: (*box) int32 number of the component that a voxel lies in, from 1; 0 outside
            the mask.
        count: n, how many there are.
    """

    box: Box | None
    component_map: np.ndarray
    count: int

    @cached_property
    def voxels(self) -> np.ndarray:
        """(n,) size of each component."""
        voxels = np.zeros(1 + self.count, np.int64)
        for _, part in _parts_of(self.component_map):
            voxels += np.bincount(part.ravel(), minlength=len(voxels))
        return voxels[1:]


def structure_boxes(label_map: np.ndarray, labels: Labels) -> dict[int, Box | None]:
    """By the channel of each structure the smallest box that holds it; None if it is absent."""
    # the boxes of the label values 1, 2, ..., found in one pass over the label map
    boxes_of_values = ndimage.find_objects(label_map)
    boxes = dict[int, Box | None]()
    for channel in labels.foreground:
        values = labels.values[channel]
        if isinstance(values, int):
            values = (values,)
        if 0 in values:
            boxes[channel] = whole_box(label_map.shape)
            continue
        boxes_of_structure = []
        for value in values:
            if value <= len(boxes_of_values) and boxes_of_values[value - 1] is not None:
                boxes_of_structure.append(boxes_of_values[value - 1])
        boxes[channel] = _enclosing_box(boxes_of_structure)
    return boxes


def _enclosing_box(boxes: Sequence[Box]) -> Box | None:
    if not boxes:
        return None
    enclosing = []
    for parts_of_axis in zip(*boxes):
        start = min(part.start for part in parts_of_axis)
        stop = max(part.stop for part in parts_of_axis)
        enclosing.append(slice(start, stop))
    return tuple(enclosing)


def label_components(
    label_map: np.ndarray, labels: Labels, channel: int, box: Box | None
) -> Components:
    """The components of a structure in a label map.

    Args:
        label_map: (*spatial) label values.
        labels: Which of these are the structure.
        channel: Of the structure.
        box: What :func:`structure_boxes` gives for it.
    """
    if box is None:
        return Components(None, np.zeros((0,) * label_map.ndim, np.int32), 0)
    return Components(box, *number_components(labels.mask(label_map[box], channel)))


def components_inside(components: Components, where: np.ndarray) -> Components:
    """The components of that part of a mask which lies inside another one.

    Args:
        components: Of the mask.
        where: (*spatial) booleans over the whole image. What it cuts in two becomes two components.
    """
    if components.box is None:
        return components
    is_inside = where[components.box]
    if not components.component_map[~is_inside].any():
        return components
    mask = (components.component_map > 0) & is_inside
    return Components(components.box, *number_components(mask))


def compare_components(true: Components, predicted: Components) -> FoundComponents:
    """What a segmentation finds of the components of the truth."""
    shared = None
    if true.box is not None and predicted.box is not None:
        shared = common_box(true.box, predicted.box)
    if shared is None:
        return FoundComponents(true=true.count, touched=0, false=predicted.count)
    box_in_true, box_in_predicted = shared
    return count_found(
        true.component_map[box_in_true],
        predicted.component_map[box_in_predicted],
        n_true=true.count,
        n_predicted=predicted.count,
    )


def _parts_of(component_map: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
    """Parts that cover a component map once, with their boxes in it.

    Working on one part after the other keeps temporary arrays small.
    """
    for box in layers_of(whole_box(component_map.shape), _PART_VOXELS):
        yield box, component_map[box]


def finding_channels(
    labels: Labels, wanted: Sequence[str] | None, listed: Sequence[str] = ()
) -> tuple[int, ...]:
    """Channels of the structures whose components are findings.

    Args:
        labels: The structures.
        wanted: Their names or nnU-Net's keys; an empty list for all, None for those that are
            ``listed``.
        listed: nnU-Net's keys of those that a calibration map names.

    Raises:
        UserError: There is no such structure.
    """
    keys = {labels.key(channel): channel for channel in labels.foreground}
    if wanted is None:
        return tuple(channel for key, channel in keys.items() if key in listed)
    names = {labels.names[channel]: channel for channel in labels.foreground}
    channels_by_name = keys | names
    for name in wanted:
        if name not in channels_by_name:
            raise UserError(
                f"there is no structure {name!r} to find; there are {', '.join(names)}."
            )
    if not wanted:
        return labels.foreground
    return tuple(sorted({channels_by_name[name] for name in wanted}))


class FindingSums:
    """Sums over the voxels of each component of a structure; probabilities come block by block.

    Args:
        case: With its geometry; its probabilities are given to :meth:`add`.
        channel: Of the structure.
        components: Of the structure in the case's segmentation.
    """

    def __init__(self, case: Case, channel: int, components: Components) -> None:
        self._name = case.labels.names[channel]
        self._channel = channel
        self._geometry = case.geometry
        self._components = components
        n_numbers = 1 + components.count  # 0 is outside the structure
        self._probability_sums = np.zeros(n_numbers)
        self._max_probability = np.zeros(n_numbers, np.float32)

    def add(self, where: Box, probs: np.ndarray) -> None:
        """Take the (C, *block) probabilities of a box of the image."""
        if self._components.box is None:
            return
        shared = common_box(where, self._components.box)
        if shared is None:
            return
        box_in_block, box_in_map = shared
        component_numbers = self._components.component_map[box_in_map].ravel()
        inside = np.flatnonzero(component_numbers)
        component_numbers = component_numbers[inside]
        probability = probs[self._channel][box_in_block].ravel()[inside].astype(np.float32)
        self._probability_sums += np.bincount(
            component_numbers, probability, minlength=len(self._probability_sums)
        )
        np.maximum.at(self._max_probability, component_numbers, probability)

    def findings(self) -> StructureFindings:
        """The components, once all blocks have been taken.

        Of equal size the one is first whose first voxel is.
        """
        components = pd.DataFrame(
            {
                "voxels": self._components.voxels,
                "mean_probability": self._probability_sums[1:] / self._components.voxels,
                "max_probability": self._max_probability[1:],
            }
        )
        largest_first = components.sort_values("voxels", ascending=False, kind="stable").head(
            MAX_FINDINGS
        )
        mean_index = self._mean_index()
        found = []
        for component in largest_first.itertuples():
            finding = Finding(
                voxels=int(component.voxels),
                volume=float(component.voxels * self._geometry.voxel_size),
                centre_mm=_coordinates_mm(mean_index[component.Index], self._geometry),
                mean_probability=float(component.mean_probability),
                max_probability=float(component.max_probability),
            )
            found.append(finding)
        return StructureFindings(self._name, tuple(found), n_more=len(components) - len(found))

    def _mean_index(self) -> np.ndarray:
        """(n, ndim) mean index in the image of the voxels of each component."""
        box = self._components.box
        component_map = self._components.component_map
        n_numbers = 1 + self._components.count
        sums = np.zeros((n_numbers, component_map.ndim))
        if box is None:
            return sums[1:]
        for part_box, part in _parts_of(component_map):
            inside = np.flatnonzero(part)
            component_numbers = part.ravel()[inside]
            for axis, index in enumerate(np.unravel_index(inside, part.shape)):
                index_in_image = index + (box[axis].start + part_box[axis].start)
                sums[:, axis] += np.bincount(component_numbers, index_in_image, minlength=n_numbers)
        return sums[1:] / self._components.voxels[:, None]


def _coordinates_mm(index: np.ndarray, geometry: Geometry) -> tuple[float, ...]:
    """(x, y, z) or (x, y) of an index in the order of the axes."""
    affine = geometry.affine
    if affine is None:
        spacing_xyz = list(geometry.spacing_mm[::-1])
        if geometry.is_2d:
            spacing_xyz = spacing_xyz[:2]
        affine = np.diag([*spacing_xyz, 1.0])
    n_coordinates = len(affine) - 1  # nnU-Net's first axis of 2D images is in no coordinates
    index_xyz = index[::-1][:n_coordinates]
    coordinates = affine[:-1, :-1] @ index_xyz + affine[:-1, -1]
    return tuple(coordinates.tolist())


def findings_table(cases: Mapping[str, Sequence[StructureFindings]], unit: str) -> pd.DataFrame:
    """findings.csv: one row a finding.

    Args:
        cases: By case what was found of each structure, in the order of the rows.
        unit: Of volumes or areas.
    """
    size = "volume" if unit == "ml" else "area"
    length = "pixels" if unit == "pixels" else "mm"
    header = [column.name.format(size=size, unit=unit, length=length) for column in FINDING_COLUMNS]
    rows = []
    for case, structures in cases.items():
        for structure in structures:
            for number, finding in enumerate(structure.found, 1):
                centre_xyz = [*finding.centre_mm, math.nan][:3]  # in 2D without z
                probabilities = (finding.mean_probability, finding.max_probability)
                name = (case, structure.name, number)
                rows.append((*name, finding.volume, *centre_xyz, *probabilities, finding.voxels))
    return pd.DataFrame(rows, columns=header)
