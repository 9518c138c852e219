"""One case in memory: its label maps, and its probabilities, whole or made of a network's logits block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from nnunet_nacl.calibration.affine import log_odds, network_box
from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.logits_export import ExportedCase, layers
from nnunet_nacl.metrics.masks import boundary_mask, dilated_mask

__all__ = ["CaseData", "ExportedData", "KnownTruth", "LabelledCase", "Prediction"]

_BLOCK_VOXELS = 1 << 18


@dataclass(frozen=True, eq=False)
class KnownTruth:
    """The ground truth of a case for those who count.

    Attributes:
        labels: (*spatial) label map, 0 where it is ignored.
        valid: (*spatial) False where it is ignored; None where nothing is.
        near: The masks ``dilated`` and ``boundary``.
    """

    labels: np.ndarray
    valid: np.ndarray | None
    near: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class LabelledCase:
    """The label maps of a case, in nnU-Net's array axis order; a subclass knows its probabilities.

    Attributes:
        truth: (*spatial) ground-truth label map, ignored voxels still marked.
        segmentation: (*spatial) predicted label map, as saved.
        geometry: Where the image lies.
    """

    truth: np.ndarray
    segmentation: np.ndarray
    geometry: Geometry
    _known: dict[Any, KnownTruth] = field(default_factory=dict, kw_only=True, repr=False)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel spacing in the order of the axes."""
        return self.geometry.spacing_mm

    def known_truth(self, ignore_label: int | None, dilation_mm: float, boundary_mm: float) -> KnownTruth:
        """The truth and the masks around it, which take as long as all the rest: made once."""
        key = ignore_label, dilation_mm, boundary_mm
        if key not in self._known:
            truth, valid = self.truth, None if ignore_label is None else self.truth != ignore_label
            if valid is not None:
                truth, valid = (truth, None) if valid.all() else (np.where(valid, truth, 0), valid)
            near = {
                "dilated": dilated_mask(truth, dilation_mm, self.spacing_mm, valid=valid),
                "boundary": boundary_mask(truth, boundary_mm, self.spacing_mm, valid=valid),
            }
            self._known[key] = KnownTruth(truth, valid, near)
        return self._known[key]

    def part(self, where: tuple[slice, ...]) -> np.ndarray:
        """(C, *block) probabilities of a box of the image, whose slices have a start and a stop."""
        raise NotImplementedError

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """The probabilities: place in the image and (C, *block); the blocks cover the image once."""
        raise NotImplementedError

    def crop(self, regions: bool) -> tuple[slice, ...] | None:
        """The part of the image that the network saw; None if there is none."""
        raise NotImplementedError

    def odds_blocks(self, regions: bool) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Log-odds inside the crop: place in the image and (m, *block) float32, in the order of the voxels."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class CaseData(LabelledCase):
    """A case whose probabilities were read.

    Attributes:
        probs: (K, *spatial) class or (R, *spatial) region probabilities.
    """

    probs: np.ndarray = field(kw_only=True)

    def part(self, where: tuple[slice, ...]) -> np.ndarray:
        """As they were read."""
        return self.probs[(slice(None), *where)]

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """All at once."""
        yield tuple(slice(0, n) for n in self.truth.shape), self.probs

    def crop(self, regions: bool) -> tuple[slice, ...] | None:
        """See :func:`~nnunet_nacl.calibration.affine.network_box`."""
        return network_box(self.probs, regions)

    def odds_blocks(self, regions: bool) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """From the probabilities, as far as they tell."""
        box = self.crop(regions)
        if box is not None:
            for where in _layers_of(box):
                yield where, log_odds(self.probs[(slice(None), *where)], regions).float()


@dataclass(frozen=True, eq=False)
class ExportedData(LabelledCase):
    """A case whose logits are in memory, and whose probabilities never are but for a block.

    Attributes:
        exported: What nnU-Net's export was shown.
    """

    exported: ExportedCase = field(kw_only=True)

    def part(self, where: tuple[slice, ...]) -> np.ndarray:
        """As nnU-Net would have saved them."""
        return self.exported.part(where)

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
        """As nnU-Net would have saved them."""
        return self.exported.blocks()

    def crop(self, regions: bool) -> tuple[slice, ...] | None:
        """nnU-Net's."""
        return self.exported.crop

    def odds_blocks(self, regions: bool) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """From the logits themselves: float32's sigmoid is 1 from z = 17 on, and these are not."""
        import torch

        box, logits = self.exported.crop, self.exported.cropped_logits
        for where in _layers_of(box):
            inner = tuple(slice(w.start - b.start, w.stop - b.start) for w, b in zip(where, box))
            block = torch.from_numpy(np.ascontiguousarray(logits[(slice(None), *inner)])).float()
            yield where, block if regions else block[1:] - block[:1]


@dataclass(frozen=True)
class Prediction:
    """What was predicted for one case, without ground truth; all arrays in nnU-Net's array axis order.

    Attributes:
        probs: (K, *spatial) class or (R, *spatial) region probabilities.
        segmentation: (*spatial) predicted label map, as saved.
        properties: Where the image lies, as nnU-Net's reader returned it for the segmentation file.
    """

    probs: np.ndarray
    segmentation: np.ndarray
    properties: dict[str, Any]


def _layers_of(box: tuple[slice, ...]) -> Iterator[tuple[slice, ...]]:
    for where in layers(tuple(part.stop - part.start for part in box), _BLOCK_VOXELS):
        yield tuple(slice(b.start + w.start, b.start + w.stop) for w, b in zip(where, box))
