"""The probabilities of a case, which come block by block, whatever they are made from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from torch import Tensor

from nnunet_nacl.calibration.calibration_map import CalibrationMap
from nnunet_nacl.calibration.log_odds import log_odds, network_box

_BLOCK_BYTES = 16 << 20  # float32 probabilities at a time
_BLOCK_VOXELS = 1 << 18  # log-odds at a time

Box = tuple[slice, ...]
"""A slice with a start and a stop for each axis of the image."""


class Probabilities:
    """(C, *spatial) probabilities, C the K classes with the background, or the R regions.

    Axes are in the order of nnU-Net's reader. A source says what ``shape``, ``num_channels``, ``regions``, ``crop`` and
    ``in_box`` are; the rest follows. This base is the source of a case without probabilities: what is asked of it
    raises ValueError.

    Attributes:
        shape: Of the image.
        num_channels: C.
        regions: Whether they are of sigmoid regions.
    """

    shape: tuple[int, ...] = ()
    num_channels: int = 0
    regions: bool = False

    @property
    def crop(self) -> Box | None:
        """The part of the image that the network saw; outside, all is background for certain. None: there is none."""
        raise ValueError("the case has no probabilities.")

    @property
    def network(self) -> Probabilities:
        """As the network gave them, before any map."""
        return self

    def in_box(self, where: Box) -> np.ndarray:
        """(C, *block) probabilities in a box of the image."""
        raise ValueError("the case has no probabilities.")

    def whole(self) -> np.ndarray:
        """(C, *spatial) probabilities, all of them in memory."""
        return self.in_box(tuple(slice(0, n) for n in self.shape))

    def blocks(self, max_bytes: int = _BLOCK_BYTES) -> Iterator[tuple[Box, np.ndarray]]:
        """Place in the image and (C, *block) probabilities of blocks that cover the image once.

        Args:
            max_bytes: Size of a block; at least one layer of the image is given at a time.
        """
        for where in layers(self.shape, max(1, max_bytes // (4 * self.num_channels))):
            yield where, self.in_box(where)

    def inside(self) -> tuple[Box, np.ndarray]:
        """A box that holds all that the network saw, and the (C, *box) probabilities there, in memory at once."""
        box = self.crop or tuple(slice(0, n) for n in self.shape)
        return box, self.in_box(box)

    def odds_blocks(self) -> Iterator[tuple[Box, Tensor]]:
        """Log-odds inside the crop: place in the image and (m, *block) float32, in the order of the voxels."""
        for where in self.crop_layers():
            yield where, log_odds(self.in_box(where), self.regions).float()

    def crop_layers(self) -> Iterator[Box]:
        """Boxes of whole layers that cover the crop once."""
        box = self.crop
        for where in () if box is None else layers(tuple(part.stop - part.start for part in box), _BLOCK_VOXELS):
            yield tuple(slice(b.start + w.start, b.start + w.stop) for w, b in zip(where, box or ()))


class SavedProbabilities(Probabilities):
    """Probabilities in memory, as they were read.

    Args:
        probs: (C, *spatial).
        regions: Whether they are of sigmoid regions.
    """

    def __init__(self, probs: np.ndarray, regions: bool) -> None:
        self.probs, self.regions = probs, regions
        self.shape, self.num_channels = probs.shape[1:], len(probs)

    @cached_property
    def crop(self) -> Box | None:
        """See :func:`~nnunet_nacl.calibration.log_odds.network_box`."""
        return network_box(self.probs, self.regions)

    def in_box(self, where: Box) -> np.ndarray:
        """A view of them."""
        return self.probs[(slice(None), *where)]

    def blocks(self, max_bytes: int = 0) -> Iterator[tuple[Box, np.ndarray]]:
        """All at once: they are in memory already."""
        yield self.inside()

    def inside(self) -> tuple[Box, np.ndarray]:
        """The whole image: a look for the crop takes longer than it saves."""
        return tuple(slice(0, n) for n in self.shape), self.probs


class CalibratedProbabilities(Probabilities):
    """The probabilities of another source, through a calibration map; computed once where those are in memory.

    Args:
        source: As the network gave them.
        map: Acts on each voxel by itself.
    """

    def __init__(self, source: Probabilities, map: CalibrationMap) -> None:
        self.source, self.map = source, map
        self.shape, self.num_channels, self.regions = source.shape, source.num_channels, source.regions

    @property
    def crop(self) -> Box | None:
        """That of the source."""
        return self.source.crop

    @property
    def network(self) -> Probabilities:
        """That of the source."""
        return self.source.network

    @cached_property
    def _kept(self) -> np.ndarray | None:
        """(C, *spatial) all of them, which are asked for several times; None where not even the source has all."""
        return self._calibrated(*self.source.inside()) if isinstance(self.source, SavedProbabilities) else None

    def in_box(self, where: Box) -> np.ndarray:
        """Calibrated inside the crop; as the source gives them outside."""
        if self._kept is not None:
            return self._kept[(slice(None), *where)]
        return self._calibrated(where, self.source.in_box(where))

    def blocks(self, max_bytes: int = _BLOCK_BYTES) -> Iterator[tuple[Box, np.ndarray]]:
        """Those of the source."""
        if self._kept is not None:
            return iter([self.inside()])
        return ((where, self._calibrated(where, probs)) for where, probs in self.source.blocks(max_bytes))

    def inside(self) -> tuple[Box, np.ndarray]:
        """That of the source."""
        where, probs = self.source.inside()
        return where, self._calibrated(where, probs) if self._kept is None else self._kept

    def _calibrated(self, where: Box, probs: np.ndarray) -> np.ndarray:
        shared = self.crop and common_box(where, self.crop)
        return self.map(probs, shared[0] if shared else tuple(slice(0, 0) for _ in where))


def common_box(one: Box, other: Box) -> tuple[Box, Box] | None:
    """What two boxes share, counted from the corner of the one and of the other; None where they share nothing."""
    ends = [(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other)]
    if any(start >= stop for start, stop in ends):
        return None
    first, second = (
        tuple(slice(start - side.start, stop - side.start) for (start, stop), side in zip(ends, box))
        for box in (one, other)
    )
    return first, second


def layers(shape: tuple[int, ...], max_voxels: int) -> Iterator[Box]:
    """Cut an image into blocks of whole layers along its first axis that is longer than 1.

    Args:
        shape: Of the image.
        max_voxels: In a block, if a single layer is not larger.
    """
    axis = next((axis for axis, length in enumerate(shape) if length > 1), 0)
    whole = [slice(0, length) for length in shape]
    step = max(1, max_voxels * shape[axis] // max(1, int(np.prod(shape))))
    for start in range(0, shape[axis], step):
        whole[axis] = slice(start, min(start + step, shape[axis]))
        yield tuple(whole)
