"""Probabilities of a case, read or computed by blocks, so that they need not fit into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from nnunet_nacl.estimators.log_odds import log_odds, network_box
from nnunet_nacl.estimators.log_odds_map import LogOddsMap

_BLOCK_VOXELS = 1 << 18  # log-odds at a time

Box = tuple[slice, ...]
"""A slice with a start and a stop for each axis of the image."""


class CaseProbabilities:
    """(C, *spatial) probabilities in the axis order of nnU-Net's readers.

    C is K, the number of classes with the background, or R, that of regions. A source says what the
    attributes, ``crop`` and ``in_box`` are; the rest follows. This base is the source of a case
    without probabilities: what is asked of it raises ValueError.

    Attributes:
        shape: Of the image.
        num_channels: C.
        regions: Whether they are of sigmoid regions.
        block_bytes: Size of a block of float32 probabilities, if one layer of the image is not
            larger.
    """

    shape: tuple[int, ...] = ()
    num_channels: int = 0
    regions: bool = False
    block_bytes: int = 8 << 20

    @property
    def crop(self) -> Box | None:
        """The part of the image that the network saw; None where it saw none.

        Outside, all is background for certain.
        """
        raise ValueError("the case has no probabilities.")

    @property
    def box(self) -> Box:
        """A box that holds all that the network saw."""
        return self.crop or whole_box(self.shape)

    def in_box(self, where: Box) -> np.ndarray:
        """(C, *block) probabilities in a box of the image, as the network gave them."""
        raise ValueError("the case has no probabilities.")

    def under(self, calibration: LogOddsMap | None, where: Box) -> tuple[np.ndarray, np.ndarray]:
        """(C, *block) probabilities in a box through a map, and as the network gave them."""
        network = self.in_box(where)
        if calibration is None:
            return network, network
        # the part of the block that lies in the crop: the map leaves all else as it is
        seen = tuple(slice(0, 0) for _ in where)  # nothing
        if self.crop is not None:
            shared = common_box(where, self.crop)
            if shared is not None:
                seen, _ = shared
        return calibration(network, seen), network

    def whole(self, calibration: LogOddsMap | None = None) -> np.ndarray:
        """(C, *spatial) probabilities through a map, all of them in memory."""
        whole = np.empty(0)
        for where in self.boxes():
            probs, _ = self.under(calibration, where)
            if not whole.size:  # only the first block tells the type
                whole = np.empty((self.num_channels, *self.shape), probs.dtype)
            whole[(slice(None), *where)] = probs
        return whole

    def boxes(self, within: Box | None = None) -> Iterator[Box]:
        """Where blocks lie that cover a box of the image once; None: the image."""
        max_voxels = self.block_bytes // (4 * self.num_channels)  # of float32
        return layers_of(within or whole_box(self.shape), max(1, max_voxels))

    def odds_blocks(self) -> Iterator[tuple[Box, Tensor]]:
        """Log-odds inside the crop: box of the image and (m, *block) float32, in voxel order.

        m is the number of structures, so K - 1 for classes and R for regions.
        """
        for where in self.crop_layers():
            yield where, log_odds(self.in_box(where), self.regions).float()

    def crop_layers(self) -> Iterator[Box]:
        """Boxes of whole layers that cover the crop once."""
        if self.crop is not None:
            yield from layers_of(self.crop, _BLOCK_VOXELS)


class SavedProbabilities(CaseProbabilities):
    """Probabilities in memory, as they were read."""

    block_bytes = 64 << 20  # large, since a block is a view that takes no memory of its own

    def __init__(self, probs: np.ndarray, regions: bool) -> None:
        self.probs = probs
        self.regions = regions
        self.num_channels = len(probs)
        self.shape = probs.shape[1:]

    @cached_property
    def crop(self) -> Box | None:
        """See :func:`~nnunet_nacl.estimators.log_odds.network_box`."""
        return network_box(self.probs, self.regions)

    @property
    def box(self) -> Box:
        """The whole image: a look for the crop takes longer than it saves."""
        return whole_box(self.shape)

    def in_box(self, where: Box) -> np.ndarray:
        """A view of them."""
        return self.probs[(slice(None), *where)]


def common_box(one: Box, other: Box) -> tuple[Box, Box] | None:
    """What two boxes share, counted from the corner of the one and of the other.

    None where they share nothing.
    """
    shared = []
    for part, other_part in zip(one, other):
        start = max(part.start, other_part.start)
        stop = min(part.stop, other_part.stop)
        if start >= stop:
            return None
        shared.append(slice(start, stop))
    return counted_from(one, shared), counted_from(other, shared)


def counted_from(outer: Box, box: Sequence[slice]) -> Box:
    """A box inside another one, counted from the corner of that."""
    return tuple(
        slice(part.start - side.start, part.stop - side.start) for part, side in zip(box, outer)
    )


def layers_of(box: Box, max_voxels: int) -> Iterator[Box]:
    """Blocks that cover a box once: whole layers along its first axis that is longer than 1.

    Each has ``max_voxels`` at most, or is a single layer.
    """
    shape = [part.stop - part.start for part in box]
    axis = next((axis for axis, length in enumerate(shape) if length > 1), 0)
    n_layers = max_voxels * shape[axis] // max(1, int(np.prod(shape)))
    step = max(1, n_layers)
    for start in range(box[axis].start, box[axis].stop, step):
        layers = slice(start, min(start + step, box[axis].stop))
        yield (*box[:axis], layers, *box[axis + 1 :])


def whole_box(shape: tuple[int, ...]) -> Box:
    """The box of a whole image."""
    return tuple(slice(0, n) for n in shape)
