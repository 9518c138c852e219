"""A case in memory: segmentation, probabilities that come block by block, and the ground truth if there is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.probabilities import Probabilities
from nnunet_nacl.numbers.binning import DEFAULT_N_BINS, check_n_bins
from nnunet_nacl.numbers.overlap import boundary_mask, dilated_mask
from nnunet_nacl.numbers.voxel_uncertainty import Disagreement

MASK_NOTES = {
    "foreground": "truth is not background: the paper's",
    "union": "truth or prediction is not background",
    "dilated": "foreground grown by {dilation_mm:g} mm",
    "boundary": "within {boundary_mm:g} mm of a surface of the truth",
    "predicted": "prediction is not background: known in use",
    "near": "within {dilation_mm:g} mm of the prediction: known in use",
    "all": "every voxel",
}
"""The masks in the order of the tables, and what is in them; the settings' radii are to be filled in."""

MASKS = tuple(MASK_NOTES)

LARGEST_RADIUS_MM = 100.0


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured of a case that has a ground truth.

    Attributes:
        n_bins: Number of confidence bins.
        dilation_mm: Radius by which the mask ``dilated`` grows the true foreground, and ``near`` the predicted one,
            at most 100 mm.
        boundary_mm: Reach of the mask ``boundary`` to either side of a surface, at most 100 mm.
    """

    n_bins: int = DEFAULT_N_BINS
    dilation_mm: float = 2.0
    boundary_mm: float = 2.0

    def __post_init__(self) -> None:
        check_n_bins(self.n_bins)
        for name in ("dilation_mm", "boundary_mm"):
            if not 0 <= getattr(self, name) <= LARGEST_RADIUS_MM:
                raise ValueError(
                    f"{name} must be a distance in mm, from 0 to {LARGEST_RADIUS_MM:g}, got {getattr(self, name)!r}."
                )

    def differing(self, other: EvaluationSettings) -> str:
        """What is measured in another way than under ``other``: ``n_bins 10, not 15``; empty where nothing is."""
        pairs = ((name, value, getattr(other, name)) for name, value in vars(self).items())
        return ", ".join(f"{name} {value}, not {another}" for name, value, another in pairs if value != another)


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

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel spacing in the order of the axes."""
        return self.geometry.spacing_mm

    def read_truth(self, settings: EvaluationSettings) -> Truth | None:
        """The truth and the masks around it, with the radii of the settings; None where there is none."""
        if self.truth is None:
            return None
        truth, ignore = self.truth, self.labels.ignore_label
        valid = None if ignore is None else truth != ignore
        if valid is not None:
            truth, valid = (truth, None) if valid.all() else (np.where(valid, truth, 0), valid)
        around = {
            "dilated": dilated_mask(truth, settings.dilation_mm, self.spacing_mm, valid=valid),
            "boundary": boundary_mask(truth, settings.boundary_mm, self.spacing_mm, valid=valid),
        }
        return Truth(truth, valid, around)
