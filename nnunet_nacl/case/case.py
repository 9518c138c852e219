"""A case in memory: its segmentation, its probabilities block by block, and its truth if there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.probabilities import Probabilities
from nnunet_nacl.numbers.surface import boundary_mask, dilated_mask
from nnunet_nacl.numbers.voxel_uncertainty import Disagreement


@dataclass(frozen=True, eq=False)
class Truth:
    """The ground truth of a case for those who count.

    Attributes:
        labels: (*spatial) label map, 0 where it is ignored.
        valid: (*spatial) False where it is ignored; None where nothing is.
        around: (*spatial) the masks ``dilated`` and ``boundary``.
    """

    labels: np.ndarray
    valid: np.ndarray | None
    around: dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Case:
    """One case in memory; arrays are in nnU-Net's array axis order.

    Attributes:
        name: Of the case.
        labels: The structures of its data set.
        geometry: Where the image lies.
        segmentation: (*spatial) predicted label map.
        probabilities: Their source, as the network gave them.
        truth: (*spatial) ground-truth label map, ignored voxels still marked; None where there is none.
        properties: What nnU-Net's reader said of the segmentation, for whoever writes another one.
        saved: The npz file that the probabilities were read from; None where there is none.
        images: Files of the scan; empty where they are not known.
        image: (*spatial) its first channel in half precision, scaled to [0, 1]; None where it was not read.
        networks: Names of the networks whose mean the probabilities are.
        disagreement: Of these networks; None with one.
        differences: How the image differs from the training's, in words.
        profile: What the scan looks like; empty where no image was read.
        made_by: How the probabilities were made, as far as it is known, as in its record.
    """

    name: str
    labels: Labels
    geometry: Geometry
    segmentation: np.ndarray
    probabilities: Probabilities = Probabilities()
    truth: Any = None
    properties: dict[str, Any] = field(default_factory=dict)
    saved: Path | None = None
    images: tuple[Path, ...] = ()
    image: np.ndarray | None = None
    networks: tuple[str, ...] = ("",)
    disagreement: Disagreement | None = None
    differences: tuple[str, ...] = ()
    profile: tuple[float, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict)
    _near: dict[float, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, kw_only=True, repr=False)

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel spacing in the order of the axes."""
        return self.geometry.spacing_mm

    def truth_and_masks(self, dilation_mm: float, boundary_mm: float) -> Truth:
        """The truth and the masks around it.

        Args:
            dilation_mm: Radius of ``dilated``.
            boundary_mm: Reach of ``boundary``.

        Raises:
            ValueError: The case has no truth.
        """
        if self.truth is None:
            raise ValueError(f"{self.name} has no ground truth.")
        truth, ignore = self.truth, self.labels.ignore_label
        valid = None if ignore is None else truth != ignore
        if valid is not None:
            truth, valid = (truth, None) if valid.all() else (np.where(valid, truth, 0), valid)
        around = {
            "dilated": dilated_mask(truth, dilation_mm, self.spacing_mm, valid=valid),
            "boundary": boundary_mask(truth, boundary_mm, self.spacing_mm, valid=valid),
        }
        return Truth(truth, valid, around)

    def near(self, predicted: np.ndarray, radius_mm: float) -> np.ndarray:
        """(*spatial) voxels within a distance of a prediction, itself included, also where the truth is ignored.

        It is made once for the same prediction.

        Args:
            predicted: (*spatial) where something is predicted.
            radius_mm: The distance, between centres.
        """
        known = self._near.get(radius_mm)
        if known is None or not np.array_equal(known[0], predicted):
            known = self._near[radius_mm] = predicted, dilated_mask(predicted, radius_mm, self.spacing_mm)
        return known[1]
