"""What the images of the training looked like, and how another image differs.

nnU-Net's dataset_fingerprint.json holds spacing and size of every training image, and percentiles of the intensities
inside the labelled structures. plans.json, which every model has, holds those percentiles too, but of spacing and size
only the medians.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import mismatch, read_dict

__all__ = ["TrainingRange"]

_FILE = "dataset_fingerprint.json"
_SHAPE = {"spacings": [[(int, float)]], "shapes_after_crop": [[(int, float)]]}
_SLACK = 1.1  # how far beyond the range of the training is still like it
_SLACK_OF_MEDIAN = 2.0  # where only the median is known


@dataclass(frozen=True)
class TrainingRange:
    """Ranges of the training images, axes in the order of nnU-Net's reader (z, y, x).

    Attributes:
        source: The file that they come from.
        spacing_mm: (2, 3) smallest and largest voxel spacing along each axis; None where it is not known.
        size_mm: (2, 3) of the images' extent, borders of zeros cut off.
        intensities: (C, 2) the 0.5th and the 99.5th percentile of the voxels in the labelled structures, a row a
            channel; NaN where they are not known.
        slack: Factor by which spacing and size may be beyond.
    """

    source: str
    spacing_mm: np.ndarray | None
    size_mm: np.ndarray | None
    intensities: np.ndarray
    slack: float = _SLACK

    @classmethod
    def find(cls, model: Path, plans: dict[str, Any], num_channels: int) -> TrainingRange:
        """From the fingerprint beside the model or among the preprocessed data, else from the plans."""
        root, places = os.environ.get("nnUNet_preprocessed"), [model / _FILE]
        if root and isinstance(plans.get("dataset_name"), str):
            places.append(Path(root) / plans["dataset_name"] / _FILE)
        for path in places:
            with contextlib.suppress(UserError):
                content = read_dict(path)
                if not mismatch(content, _SHAPE) and content["spacings"]:
                    spacing = np.array(content["spacings"], float)
                    size = spacing * np.array(content["shapes_after_crop"], float)
                    spacings, sizes = (np.stack([values.min(0), values.max(0)]) for values in (spacing, size))
                    return cls(str(path), spacings, sizes, _intensities(content, num_channels))
        spacing_mm = size_mm = None
        with contextlib.suppress(KeyError, TypeError, ValueError):
            backward = list(plans["transpose_backward"])
            median = np.array(plans["original_median_spacing_after_transp"], float)[backward]
            shape = np.array(plans["original_median_shape_after_transp"], float)[backward]
            spacing_mm, size_mm = np.stack([median] * 2), np.stack([median * shape] * 2)
        return cls("plans.json", spacing_mm, size_mm, _intensities(plans, num_channels), _SLACK_OF_MEDIAN)

    def compare_grid(
        self, spacing_mm: Sequence[float], shape: Sequence[int], *, is_2d: bool = False, unit: str = "mm"
    ) -> list[str]:
        """How spacing and size of an image differ, in words: a sentence for each axis that is beyond the range.

        Args:
            spacing_mm: (z, y, x).
            shape: Of the image, borders of zeros cut off.
            is_2d: Whether the first axis is one that nnU-Net's reader added.
            unit: Of the spacing, for the words: pictures have none in mm.
        """
        spacing, said = np.asarray(spacing_mm, float), []
        for what, values, known in (
            ("spacing", spacing, self.spacing_mm),
            ("size", spacing * np.asarray(shape), self.size_mm),
        ):
            if known is None:
                continue
            for axis in range(int(is_2d), 3):
                said += self._beyond(f"{what} along {'zyx'[axis]}", unit, values[axis], *known[:, axis])
        return said

    def _beyond(self, what: str, unit: str, value: float, low: float, high: float) -> list[str]:
        if low / self.slack <= value <= high * self.slack:
            return []
        side, factor = ("largest", value / high) if value > high else ("smallest", value / low)
        trained = f"{low:.3g} to {high:.3g}" if low < high else f"{low:.3g}"
        side = side if low < high else "median" if self.slack == _SLACK_OF_MEDIAN else "usual"
        return [f"{what} {value:.3g} {unit}, in the training {trained} ({factor:.2g} x the {side})"]

    def compare_intensities(self, image: Iterable[np.ndarray], foreground: np.ndarray) -> list[str]:
        """How the intensities of an image differ, in words.

        The median inside the segmented structures must lie between the training's percentiles; where nothing was
        segmented, some voxel of the image must.

        Args:
            image: Its (*spatial) channels in the units of the file.
            foreground: (*spatial) boolean, where a structure was segmented.
        """
        said = []
        for i, (channel, (low, high)) in enumerate(zip(image, self.intensities)):
            if not low < high:  # NaN: not known
                continue
            trained = f"in the training {low:.4g} to {high:.4g}"
            if not foreground.any():
                if not ((channel >= low) & (channel <= high)).any():
                    said.append(f"no voxel of channel {i} has an intensity of the structures, {trained}")
                continue
            median = float(np.median(channel[foreground]))
            if not low <= median <= high:
                beyond = (median - high if median > high else low - median) / (high - low)
                said.append(
                    f"median intensity of channel {i} in the structures {median:.4g}, {trained} "
                    f"({'above' if median > high else 'below'} by {beyond:.2g} x this range)"
                )
        return said


def _intensities(content: dict[str, Any], num_channels: int) -> np.ndarray:
    rows = []
    for i in range(num_channels):
        row = content.get("foreground_intensity_properties_per_channel", {}).get(str(i), {})
        rows.append([row.get(name, np.nan) for name in ("percentile_00_5", "percentile_99_5")])
    return np.array(rows, float)
