"""Spacing and size of the images that a model knows, and how another image differs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.numbers.unlike import LOG, CalibrationProfiles

_FILE = "dataset_fingerprint.json"
_SLACK = 1.1  # how far beyond the range is still like it


@dataclass(frozen=True)
class TrainingRange:
    """Of n images, axes in the order of nnU-Net's reader (z, y, x).

    Attributes:
        whose: ``the training``, or ``the calibration scans``; empty where neither is known, and n is 0.
        spacings_mm: (n, 3) voxel spacing.
        sizes_mm: (n, 3) voxels times spacing, borders of zeros cut off.
    """

    whose: str
    spacings_mm: np.ndarray
    sizes_mm: np.ndarray

    @classmethod
    def find(cls, model: Path, plans: Mapping[str, Any], scans: CalibrationProfiles | None) -> TrainingRange:
        """From nnU-Net's fingerprint beside the model or among the preprocessed data, else from calibration scans."""
        preprocessed = Path(os.environ.get("nnUNet_preprocessed", ""), plans.get("dataset_name", ""))
        for path in (model / _FILE, preprocessed / _FILE):
            with contextlib.suppress(
                UserError, KeyError, TypeError, ValueError, OverflowError
            ):  # damaged, or not there
                content = read_dict(path)
                spacings, shapes = (np.array(content[key], float) for key in ("spacings", "shapes_after_crop"))
                both = np.stack([spacings, spacings * shapes])
                if both.shape == (2, len(spacings), 3) and (np.isfinite(both) & (both > 0)).all():
                    return cls("the training", *both)
        names = [f"{LOG}{number} along {axis}" for number in ("spacing", "size") for axis in "zyx"]
        if scans is None or not set(names) <= set(scans.names):
            return cls("", *np.empty((2, 0, 3)))
        columns = np.array(scans.values, float).T[[scans.names.index(name) for name in names]]
        return cls("the calibration scans", *np.exp(columns).reshape(2, 3, -1).transpose(0, 2, 1))

    def compare(self, geometry: Geometry, shape: Sequence[int]) -> list[str]:
        """How spacing and size of an image differ, in words: a sentence for each axis that is beyond the range.

        Args:
            geometry: Of the image.
            shape: Its voxels, borders of zeros cut off.
        """
        spacing, unit, said = np.array(geometry.spacing_mm), geometry.unit, list[str]()
        sizes = ("spacing", spacing, self.spacings_mm), ("size", spacing * np.array(shape), self.sizes_mm)
        for quantity, values, known in sizes if self.whose else ():
            for axis in range(int(geometry.is_2d), 3):  # nnU-Net's first axis of 2D images is none
                value, low, high = values[axis], known[:, axis].min(), known[:, axis].max()
                if not low / _SLACK <= value <= high * _SLACK:
                    side, factor = ("largest", value / high) if value > high else ("smallest", value / low)
                    there = f"{low:.3g} to {high:.3g}" if low < high else f"{low:.3g}"
                    times = f"({factor:.2g} x the {side if low < high else 'usual'})"
                    length = f"{value:.3g} {'pixels' if unit == 'pixels' else 'mm'}"
                    said.append(f"{quantity} along {'zyx'[axis]} {length}, in {self.whose} {there} {times}")
        return said
