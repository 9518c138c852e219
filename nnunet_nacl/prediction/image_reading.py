"""Reads the image of a case by nnU-Net's reader, and refuses what no network can make sense of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.geometry import Geometry
from nnunet_nacl.cases.image_files import check_whole, quiet
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import first_line


def read_images(reader: Any, files: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
    """(C, *spatial) image and where it lies; UserError, which names the file, if one cannot be read or is cut off."""
    for path in files:
        check_whole(path, "an image")
    try:
        with quiet():
            return reader.read_images([str(path) for path in files])
    except Exception as error:  # the readers raise whatever their libraries do
        together = " and its other channels" if len(files) > 1 else ""
        raise UserError(
            f"{files[0]}{together}: cannot be read as an image ({first_line(error)}); restore it."
        ) from None


def check_image(
    image: np.ndarray, properties: dict[str, Any], source: Sequence[object], *, num_channels: int, num_axes: int
) -> None:
    """UserError for an image that the network cannot take.

    Args:
        image: (C, *spatial).
        properties: As nnU-Net's reader returned them.
        source: File of each channel, for the message.
        num_channels: That the network takes.
        num_axes: Axes of its patches: 2 or 3.
    """
    if image.ndim != 4 or len(image) != num_channels:
        raise UserError(
            f"{source[0]}: an image of shape {image.shape}, (channels, z, y, x), but the model takes {num_channels} "
            "channels; give one file for each, CASE_0000, CASE_0001, ..."
        )
    spacing = np.asarray(properties["spacing"], dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise UserError(f"{source[0]}: the voxel spacing is {spacing.tolist()}; correct the image's header.")
    if num_axes == 3 and image.shape[1] == 1 and Geometry.of(properties).is_2d:
        raise UserError(f"{source[0]}: a 2D image, but the model is 3D; give volumes, or use a 2D configuration.")
    for i, channel in enumerate(image):
        path = source[min(i, len(source) - 1)]
        if not np.isfinite(channel).all():
            raise UserError(
                f"{path}: it holds voxels that are NaN or infinite; replace them, or export the scan again."
            )
        if channel.min() == channel.max():
            raise UserError(f"{path}: all voxels have the value {channel.flat[0]:g}; export the scan again.")
