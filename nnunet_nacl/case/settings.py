"""What is measured of a case that has a ground truth: masks, their radii, and the number of bins."""

from __future__ import annotations

from dataclasses import dataclass

from nnunet_nacl.numbers.binning import DEFAULT_N_BINS, check_n_bins

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
    """What is measured.

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
        pairs = {key: (value, getattr(other, key)) for key, value in vars(self).items()}
        return ", ".join(f"{key} {value}, not {another}" for key, (value, another) in pairs.items() if value != another)
