"""The probabilities of a case, read or computed block by block so that they need not fit into
memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from nnunet_nacl.calibration.log_odds import log_odds, network_box
from nnunet_nacl.calibration.log_odds_map import LogOddsMap

_BLOCK_VOXELS = 1 << 18  # log-odds at a time

Box = tuple[slice, ...]
"""A slice with a start and a stop for each axis of the image."""


class CaseProbabilities:
    """(C, *spatial) probabilities, C the K classes with the background, or the R regions, in the
    axis order of readers.

    A source says what the attributes, ``crop`` and ``in_box`` are; the rest follows. This base is
    the source of a case without probabilities: what is asked of it raises ValueError.

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
    block_bytes: int = 16 << 20

    @property
    def crop(self) -> Box | None:
        """The part of the image that the network saw; outside, all is background for certain. None:
        there is none."""
        raise ValueError("the case has no probabilities.")

    @property
    def box(self) -> Box:
        """A box that holds all that the network saw."""
        return self.crop or whole_box(self.shape)

    def in_box(self, where: Box) -> np.ndarray:
        """(C, *block) probabilities in a box of the image, as the network gave them."""
        raise ValueError("the case has no probabilities.")

    def under(self, calibration: LogOddsMap | None, where: Box) -> tuple[np.ndarray, np.ndarray]:
        """(C, *block) probabilities in a box of the image through a map, and the same as the
        network gave them."""
        network = self.in_box(where)
        if calibration is None:
            return network, network
        shared = self.crop and common_box(where, self.crop)
        return calibration(
            network, shared[0] if shared else tuple(slice(0, 0) for _ in where)
        ), network

    def whole(self, calibration: LogOddsMap | None = None) -> np.ndarray:
        """(C, *spatial) probabilities through a map, all of them in memory."""
        result: Any = None
        for where in self.boxes():
            probs = self.under(calibration, where)[0]
            result = (
                np.empty((self.num_channels, *self.shape), probs.dtype)
                if result is None
                else result
            )
            result[(slice(None), *where)] = probs
        return result

    def boxes(self, within: Box | None = None) -> Iterator[Box]:
        """Where blocks lie that cover a box of the image once; None: the image."""
        return layers_of(
            within or whole_box(self.shape), max(1, self.block_bytes // (4 * self.num_channels))
        )

    def odds_blocks(self) -> Iterator[tuple[Box, Tensor]]:
        """Log-odds inside the crop: place in the image and (m, *block) float32, in the order of the
        voxels."""
        for where in self.crop_layers():
            yield where, log_odds(self.in_box(where), self.regions).float()

    def crop_layers(self) -> Iterator[Box]:
        """Boxes of whole layers that cover the crop once."""
        return iter(()) if self.crop is None else layers_of(self.crop, _BLOCK_VOXELS)


class SavedProbabilities(CaseProbabilities):
    """Probabilities in memory, as they were read."""

    block_bytes = 64 << 20  # nothing is made for a block but what is computed from it

    def __init__(self, probs: np.ndarray, regions: bool) -> None:
        self.probs, self.regions = probs, regions
        self.shape, self.num_channels = probs.shape[1:], len(probs)

    @cached_property
    def crop(self) -> Box | None:
        """See :func:`~nnunet_nacl.calibration.log_odds.network_box`."""
        return network_box(self.probs, self.regions)

    @property
    def box(self) -> Box:
        """The whole image: a look for the crop takes longer than it saves."""
        return whole_box(self.shape)

    def in_box(self, where: Box) -> np.ndarray:
        """A view of them."""
        return self.probs[(slice(None), *where)]


def common_box(one: Box, other: Box) -> tuple[Box, Box] | None:
    """What two boxes share, counted from the corner of the one and of the other; None where they
    share nothing."""
    ends = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other)]
    if any(start >= stop for start, stop in ends):
        return None
    first, second = (
        tuple(
            slice(start - side.start, stop - side.start) for (start, stop), side in zip(ends, box)
        )
        for box in (one, other)
    )
    return first, second


def layers_of(box: Box, max_voxels: int) -> Iterator[Box]:
    """Blocks of whole layers along a box's first axis that is longer than 1, of ``max_voxels`` or a
    single layer."""
    shape, whole = [part.stop - part.start for part in box], list(box)
    axis = next((axis for axis, length in enumerate(shape) if length > 1), 0)
    step = max(1, max_voxels * shape[axis] // max(1, int(np.prod(shape))))
    for start in range(box[axis].start, box[axis].stop, step):
        whole[axis] = slice(start, min(start + step, box[axis].stop))
        yield tuple(whole)


def whole_box(shape: tuple[int, ...]) -> Box:
    """The box of a whole image."""
    return tuple(slice(0, n) for n in shape)
