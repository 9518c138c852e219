"""The connected components of the structures in a case, and what the probabilities say about each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from nnunet_nacl.documents.finding_list import Finding, StructureFindings
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.case import Case
from nnunet_nacl.io.geometry import Geometry
from nnunet_nacl.io.labels import Labels
from nnunet_nacl.io.probabilities import Box, common_box
from nnunet_nacl.json_files import encode
from nnunet_nacl.metrics.diameter import largest_diameter
from nnunet_nacl.metrics.surface import bounding_box

FOUND = "findings"
"""Name of the block of a case's entry that holds them, by nnU-Net's key of each structure."""

MOST_FINDINGS = 100
"""Of a structure in a case; of more, the largest are listed."""


def label_components(mask: np.ndarray) -> tuple[Box | None, np.ndarray]:
    """The box that holds a mask, None if it is empty, and the number of each connected component there, from 1.

    Voxels that touch at a corner are connected.
    """
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
    if wanted is None:
        return tuple(channel for channel in labels.foreground if labels.key(channel) in listed)
    known = {labels.key(channel): channel for channel in labels.foreground}
    known |= {labels.names[channel]: channel for channel in labels.foreground}
    if unknown := [name for name in wanted if name not in known]:
        there = ", ".join(labels.names[channel] for channel in labels.foreground)
        raise UserError(f"there is no structure {unknown[0]!r} to find; there are {there}.")
    return tuple(sorted({known[name] for name in wanted})) or labels.foreground


class ComponentSums:
    """Sums over the components of a case, whose probabilities come block by block.

    Args:
        case: With its segmentation, and truth if there is one; its probabilities are not asked for.
        channels: Of the structures; None for all.
    """

    def __init__(self, case: Case, channels: Sequence[int] | None = None) -> None:
        self._case = case
        self._structures = [_Components(case, c) for c in (case.labels.foreground if channels is None else channels)]

    def add(self, where: Box, probs: np.ndarray) -> None:
        """Count the (C, *block) probabilities of a box of the image."""
        for one in self._structures:
            one.add(where, probs, one.here)

    def add_network(self, where: Box, probs: np.ndarray) -> None:
        """Count them as the network gave them, where a map has changed them since."""
        for one in self._structures:
            one.network = one.network or _Sums(one.n)
            one.add(where, probs, one.network)

    def findings(self) -> list[StructureFindings]:
        """By structure, once all blocks have been counted."""
        return [one.findings(self._case.geometry) for one in self._structures]

    def block(self) -> dict[str, Any]:
        """JSON values of the findings by nnU-Net's key, for a case's entry: without diameters, which take longest."""
        block = {one.key: encode(one.findings(self._case.geometry, diameters=False)) for one in self._structures}
        for structure in block.values():
            for found in structure["found"]:
                for name in ("diameter_mm", "network", "real_probability"):
                    del found[name]
        return block


class _Sums:
    """Sum and largest of the probabilities in each of n components, by number."""

    def __init__(self, n: int) -> None:
        self.total, self.largest = np.zeros(n + 1), np.zeros(n + 1)

    def of(self, number: int, sizes: np.ndarray) -> tuple[float, float]:
        """Mean and largest probability of a component."""
        return float(self.total[number] / sizes[number]), float(self.largest[number])


class _Components:
    """Of one structure: components are numbered inside the box that holds all of them."""

    def __init__(self, case: Case, channel: int) -> None:
        self.channel, self.name, self.key = channel, case.labels.names[channel], case.labels.key(channel)
        self.box, self.labels = label_components(case.labels.mask(case.segmentation, channel))
        self.n = int(self.labels.max(initial=0))
        self.here = _Sums(self.n)
        self.network: _Sums | None = None
        self.overlaps: list[tuple[int, ...] | None] = [None] * (self.n + 1)
        self.n_true: int | None = None
        if case.truth is not None:
            self._compare(case, channel)

    def _compare(self, case: Case, channel: int) -> None:
        ignore, true = case.labels.ignore_label, case.labels.mask(case.truth, channel)
        true_box, lesions = label_components(true)
        self.n_true = int(lesions.max(initial=0))
        if self.box is None:
            return
        valid = np.ones(self.labels.shape, bool) if ignore is None else case.truth[self.box] != ignore
        known = np.bincount(self.labels[valid], minlength=self.n + 1) > 0
        self.overlaps = [() if seen else None for seen in known]
        if shared := true_box and common_box(self.box, true_box):
            components, common = self.labels[shared[0]], lesions[shared[1]]
            both = (components > 0) & (common > 0)
            for component, lesion in np.unique(np.stack([components[both], common[both]]), axis=1).T.tolist():
                self.overlaps[component] = (*(self.overlaps[component] or ()), lesion)

    def add(self, where: Box, probs: np.ndarray, sums: _Sums) -> None:
        shared = self.box and common_box(where, self.box)
        if not shared:
            return
        block, own = shared
        inside = self.labels[own] > 0
        number, p = self.labels[own][inside], probs[self.channel][block][inside]
        sums.total += np.bincount(number, p, self.n + 1)
        np.maximum.at(sums.largest, number, p)

    def findings(self, geometry: Geometry, *, diameters: bool = True) -> StructureFindings:
        if self.box is None:
            return StructureFindings(self.key, self.name, n_true=self.n_true)
        sizes = np.bincount(self.labels.ravel(), minlength=self.n + 1)
        order = 1 + np.argsort(-sizes[1:], kind="stable")[:MOST_FINDINGS]
        boxes, found = ndimage.find_objects(self.labels), []
        network = self.network or self.here
        flat = geometry.is_2d and self.labels.ndim == 3
        spacing = geometry.spacing_mm[int(flat) :]
        for number in order.tolist():
            mask = self.labels[boxes[number - 1]] == number
            starts = [part.start + whole.start for part, whole in zip(boxes[number - 1], self.box)]
            centre = [float(index.mean()) + start for index, start in zip(np.nonzero(mask), starts)]
            found.append(
                Finding(
                    int(sizes[number]),
                    float(sizes[number] * geometry.voxel_size),
                    _in_space(centre, geometry),
                    *self.here.of(number, sizes),
                    self.overlaps[number],
                    largest_diameter(mask[0] if flat else mask, spacing) if diameters else math.nan,
                    network.of(number, sizes),
                )
            )
        return StructureFindings(self.key, self.name, tuple(found), self.n_true, self.n - len(found))


def _in_space(centre: Sequence[float], geometry: Geometry) -> tuple[float, ...]:
    """Coordinates in mm, (x, y, z) or (x, y), of an index in the order of the axes."""
    spacing, affine = np.array(geometry.spacing_mm[::-1]), geometry.affine
    if affine is None:
        affine = np.diag([*(spacing[:2] if geometry.is_2d else spacing), 1.0])
    index = np.array(centre[::-1])[: len(affine) - 1]  # nnU-Net's first axis of 2D images is in no coordinates
    return tuple((affine[:-1, :-1] @ index + affine[:-1, -1]).tolist())
