"""Writes maps as images that lie exactly where the segmentation lies, in the same file format, by nnU-Net's own writer.

That takes integers only (it casts to uint8 or uint16, whichever the largest value needs), so it is given arrays that
stay what they are.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import replacing, write_atomically
from nnunet_nacl.io.geometry import Geometry
from nnunet_nacl.io.image_files import verified

DTYPES = ("uint8", "float32")

_INTEGER_ENDINGS = (".png", ".bmp")


class _KeepsType(np.ndarray):
    """An array that nnU-Net's writers, which ask for integers, write as it is."""

    def astype(self, *arguments: Any, **options: Any) -> np.ndarray:
        """The same array, whatever is asked for."""
        return self.view(np.ndarray)


def to_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values in [0, 1] as stored: float32 as they are, or uint8 with 255 = 1.

    uint8 is round(255 x), halves to the even neighbour: read back as stored / 255, it is off by at most 1/510. NIfTI
    files have that factor as their slope, so that readers give values in [0, 1].
    """
    if dtype == "float32":
        return values.astype(np.float32, copy=False)
    if dtype == "uint8":
        return np.rint(np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)
    raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}.")


def check_dtype(dtype: str, file_ending: str) -> None:
    """UserError where a file format cannot hold the type."""
    if dtype == "float32" and file_ending.lower() in _INTEGER_ENDINGS:
        raise UserError(f"{file_ending} files hold no float32; use -dtype uint8.")


def write_image(array: np.ndarray, path: Path, writer: Any, properties: Mapping[str, Any]) -> list[Path]:
    """Write a scalar image under a temporary name with the same ending, verify it, then rename it.

    Args:
        array: (*spatial) in nnU-Net's array axis order, 2D images as (1, y, x); float32, or uint8 where 255 is 1.
        path: The file; its ending decides the format.
        writer: nnU-Net's, of the data set.
        properties: What nnU-Net's reader said of the segmentation.

    Returns:
        What was written: the image and, for tif, the file with its spacing.

    Raises:
        UserError: The file cannot be written in full.
    """
    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    is_tiff = path.suffix.lower() in (".tif", ".tiff") and not Geometry.of(properties).is_2d
    array = np.ascontiguousarray(array)
    with replacing(path, ending=ending) as temporary, verified(temporary):
        if is_tiff:
            _write_tiff(array, temporary)
        elif array.dtype == np.uint8 and ending in (".nii", ".nii.gz"):
            _write_scaled(array, temporary, writer, properties)
        else:
            writer.write_seg(array.view(_KeepsType), str(temporary), properties)
    if not is_tiff:
        return [path]
    # nnU-Net keeps the spacing of tif files in a file beside them
    spacing_file = path.with_suffix(".json")
    write_atomically(spacing_file, json.dumps({"spacing": properties["spacing"]}))
    return [path, spacing_file]


def _write_scaled(array: np.ndarray, path: Path, writer: Any, properties: Mapping[str, Any]) -> None:
    """Have readers of a NIfTI file take 255 for 1: the writers know no slope, so it is put into the finished header."""
    import nibabel

    plain = path if path.suffix == ".nii" else path.with_suffix("")
    try:
        writer.write_seg(array.view(_KeepsType), str(plain), properties)
        header: Any = nibabel.load(plain).header
        header.set_slope_inter(1 / 255, 0)
        with open(plain, "r+b") as file:
            header.write_to(file)
        if plain != path:
            with open(plain, "rb") as source, open(path, "wb") as file:
                with gzip.GzipFile("", "wb", 1, file, mtime=0) as target:  # the same bytes for the same map
                    shutil.copyfileobj(source, target)
    finally:
        if plain != path:
            plain.unlink(missing_ok=True)


def _write_tiff(array: np.ndarray, path: Path) -> None:
    import tifffile

    tifffile.imwrite(path, array, compression="zlib", photometric="minisblack")  # else 3 or 4 slices become colours
