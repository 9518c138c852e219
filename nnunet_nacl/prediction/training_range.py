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
from nnunet_nacl.json_files import read_dict

_FILE = "dataset_fingerprint.json"
_DAMAGED = (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError)
_SLACK = 1.1  # how far beyond the range of the training is still like it
_SLACK_OF_MEDIAN = 2.0  # where only the median is known


@dataclass(frozen=True)
class TrainingRange:
    """Ranges of the training images, axes in the order of nnU-Net's reader (z, y, x).

    Attributes:
        source: The file that they come from.
        spacings_mm: (n, 3) voxel spacing of the n images, or of one with their medians; no row where it is not known.
        shapes: (n, 3) voxels of each, borders of zeros cut off.
        intensities: (C, 2) the 0.5th and the 99.5th percentile of the voxels in the labelled structures, a row a
            channel; NaN where they are not known.
        slack: Factor by which spacing and size may be beyond.
    """

    source: str
    spacings_mm: np.ndarray
    shapes: np.ndarray
    intensities: np.ndarray
    slack: float = _SLACK

    @classmethod
    def find(cls, model: Path, plans: dict[str, Any], num_channels: int) -> TrainingRange:
        """From the fingerprint beside the model or among the preprocessed data, else from the plans."""
        root, places = os.environ.get("nnUNet_preprocessed"), [model / _FILE]
        if root and isinstance(plans.get("dataset_name"), str):
            places.append(Path(root) / plans["dataset_name"] / _FILE)
        for path in places:
            with contextlib.suppress(UserError, *_DAMAGED):
                content = read_dict(path)
                spacings, shapes = _rows(content["spacings"]), _rows(content["shapes_after_crop"])
                if spacings.shape == shapes.shape:
                    return cls(str(path), spacings, shapes, _intensities(content, num_channels))
        spacings = shapes = np.empty((0, 3))
        with contextlib.suppress(*_DAMAGED):
            names = "original_median_spacing_after_transp", "original_median_shape_after_transp"
            spacings, shapes = (_rows([plans[name]])[:, plans["transpose_backward"]] for name in names)
        return cls("plans.json", spacings, shapes, _intensities(plans, num_channels), _SLACK_OF_MEDIAN)

    @property
    def words(self) -> str:
        """What images are compared with."""
        return "the medians of the training images" if self.slack == _SLACK_OF_MEDIAN else "the training images"

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
        for quantity, values, known in (
            ("spacing", spacing, _range(self.spacings_mm)),
            ("size", spacing * np.asarray(shape), _range(self.spacings_mm * self.shapes)),
        ):
            for axis in range(int(is_2d), 3):
                said += self._beyond(f"{quantity} along {'zyx'[axis]}", unit, values[axis], *known[:, axis])
        return said

    def _beyond(self, quantity: str, unit: str, value: float, low: float, high: float) -> list[str]:
        if not (value < low / self.slack or value > high * self.slack):  # NaN: not known
            return []
        side, factor = ("largest", value / high) if value > high else ("smallest", value / low)
        trained = f"{low:.3g} to {high:.3g}" if low < high else f"{low:.3g}"
        side = side if low < high else "median" if self.slack == _SLACK_OF_MEDIAN else "usual"
        return [f"{quantity} {value:.3g} {unit}, in the training {trained} ({factor:.2g} x the {side})"]

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


def _rows(values: Any) -> np.ndarray:
    """(n, 3) positive numbers; ValueError if these are others."""
    rows = np.array(values, float)
    if rows.ndim != 2 or rows.shape[1] != 3 or not len(rows) or not (np.isfinite(rows) & (rows > 0)).all():
        raise ValueError
    return rows


def _range(values: np.ndarray) -> np.ndarray:
    """(2, 3) smallest and largest along each axis; NaN where it is not known."""
    return np.stack([values.min(0), values.max(0)]) if len(values) else np.full((2, 3), np.nan)


def _intensities(content: dict[str, Any], num_channels: int) -> np.ndarray:
    percentiles = np.full((num_channels, 2), np.nan)
    for i in range(num_channels):
        with contextlib.suppress(*_DAMAGED):
            row = content["foreground_intensity_properties_per_channel"][str(i)]
            percentiles[i] = row["percentile_00_5"], row["percentile_99_5"]
    return percentiles
