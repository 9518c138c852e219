"""The published evaluation, for comparison with the paper's tables only.

It differs from this package's own numbers where those would be misleading: every case's DSC, ECE and CECE are rounded
to four decimals before they are averaged; a class that is absent in the truth has DSC 1 and distance 0 whatever was
predicted; an empty prediction has distance 0; distances are in voxels as if the spacing were 1; and CECE is the mean
over the classes 0 to the largest label of the case, so that two cases may average different classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import cece, ece, nanmean
from nnunet_nacl.metrics.overlap import Overlap

__all__ = ["PaperScores", "paper_mean", "paper_scores"]

_DECIMALS = 4


@dataclass(frozen=True)
class PaperScores:
    """One case (or the mean over cases) in the published definition; all on the ground-truth foreground.

    Attributes:
        dsc: Dice of each structure.
        hd95_voxels: 95th percentile of the surface distances of each structure, in voxels.
        ece: Expected calibration error; NaN where the case has no foreground.
        cece: Class-wise error; NaN where the case has no foreground.
    """

    dsc: dict[str, float]
    hd95_voxels: dict[str, float]
    ece: float
    cece: float


def paper_scores(
    overlaps: Mapping[str, Overlap], hd95_voxels: Mapping[str, float], foreground: BinStats, largest_label: int
) -> PaperScores:
    """Scores of one case.

    Args:
        overlaps: Voxel counts of each structure, background excluded.
        hd95_voxels: HD95 of each structure at unit spacing, NaN where it is missing in either segmentation.
        foreground: Sums on the mask ``foreground``, of classes (not regions).
        largest_label: Largest label of the case's truth.

    Returns:
        The case's scores, rounded as published.
    """
    absent = {key for key, overlap in overlaps.items() if overlap.tp + overlap.fn == 0}
    dsc = {key: 1.0 if key in absent else round(overlap.dice, _DECIMALS) for key, overlap in overlaps.items()}
    # NaN means that the structure is missing in the truth or in the prediction: both count as distance 0
    distance = {key: 0.0 if np.isnan(value) else float(value) for key, value in hd95_voxels.items()}
    return PaperScores(
        dsc,
        distance,
        round(ece(foreground), _DECIMALS),
        round(cece(foreground, num_classes=largest_label + 1), _DECIMALS),
    )


def paper_mean(cases: list[PaperScores]) -> PaperScores:
    """Mean over cases; cases without foreground are left out of ECE and CECE. ValueError if there is no case."""
    if not cases:
        raise ValueError("paper_mean needs at least one case, got none.")
    keys = cases[0].dsc

    return PaperScores(
        {key: nanmean(case.dsc[key] for case in cases) for key in keys},
        {key: nanmean(case.hd95_voxels[key] for case in cases) for key in keys},
        nanmean(case.ece for case in cases),
        nanmean(case.cece for case in cases),
    )
