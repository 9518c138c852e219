"""Findings: the connected components of a segmentation, one row each in findings.csv and under their scan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nnunet_nacl.files import to_csv_text

FINDINGS = "findings.csv"


@dataclass(frozen=True)
class Finding:
    """One connected component of one structure; voxels that touch at a corner are connected.

    Attributes:
        voxels: How many it has.
        volume: In the case's unit.
        centre_mm: (x, y, z), in 2D (x, y): mean of its voxels' centres in the coordinates of the scan as DICOM and
            SimpleITK have them (x to the left, y to the back, z to the head). Of images without any, index times
            spacing.
        mean_probability: Of the structure, over its voxels, as the case has them: calibrated where the case is.
        max_probability: The largest there.
        overlaps: Numbers of the true components of the structure that it has voxels of, from 1; None where there is no
            truth, or it is ignored in all of its voxels.
        diameter_mm: Largest distance between two of its points; NaN where it was not measured.
        network: Mean and largest probability as the network gave them, before any map: what ``real_probability`` is
            learned from.
        real_probability: That it overlaps the truth at all; NaN where nothing was learned.
    """

    voxels: int
    volume: float
    centre_mm: tuple[float, ...]
    mean_probability: float
    max_probability: float
    overlaps: tuple[int, ...] | None = None
    diameter_mm: float = math.nan
    network: tuple[float, float] = (math.nan, math.nan)
    real_probability: float = math.nan

    @property
    def real(self) -> bool | None:
        """Whether it overlaps the truth; None where that is not known."""
        return None if self.overlaps is None else bool(self.overlaps)


@dataclass(frozen=True)
class StructureFindings:
    """All components of a structure in a case.

    Attributes:
        key: Of the structure, nnU-Net's.
        name: Its name.
        found: The components, the largest first.
        n_true: How many the truth has; None without truth.
        n_more: Smaller ones that are not listed.
    """

    key: str
    name: str
    found: tuple[Finding, ...] = field(default_factory=tuple)
    n_true: int | None = None
    n_more: int = 0


def findings_csv_text(cases: Mapping[str, Sequence[StructureFindings]], unit: str) -> str:
    """One row a finding, cases in the order given; a cell is empty where a number is not defined.

    Args:
        cases: Findings of each case.
        unit: Of the volumes.
    """
    size = "volume" if unit == "ml" else "area"
    length = "pixels" if unit == "pixels" else "mm"
    columns = ["case", "structure", "finding", "real_probability", f"{size}_{unit}", f"diameter_{length}"]
    columns += [f"centre_{axis}_{length}" for axis in "xyz"] + ["mean_probability", "max_probability", "voxels"]
    rows = []
    for case, structures in cases.items():
        for structure in structures:
            for number, one in enumerate(structure.found, 1):
                centre = [*one.centre_mm, math.nan][:3]
                numbers = (one.real_probability, one.volume, one.diameter_mm, *centre)
                rows.append([case, structure.name, number, *map(_short, numbers)])
                rows[-1] += [_short(one.mean_probability), _short(one.max_probability), one.voxels]
    return to_csv_text(columns, rows)


def _short(value: float) -> float:
    return float(f"{value:.6g}")
