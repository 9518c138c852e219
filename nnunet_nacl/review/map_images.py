"""Writes maps as images that lie exactly where the segmentation lies, in the same file format.

nnU-Net's own writers take integers only (they cast to uint8 or uint16, whichever the largest value needs), so the maps
are written here: with the same axis order, spacing, origin, direction or affine matrix, and for the reorienting readers
turned back to the orientation of the file.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import replacing, write_atomically
from nnunet_nacl.io.geometry import RAS_TO_LPS, Geometry
from nnunet_nacl.io.image_files import verified

DTYPES = ("uint8", "float32")

_INTEGER_ENDINGS = (".png", ".bmp")

Write = Callable[[np.ndarray, str, Geometry], None]
"""Writes an array to a path."""


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


def write_image(array: np.ndarray, path: Path, geometry: Geometry) -> list[Path]:
    """Write a scalar image under a temporary name with the same ending, verify it, then rename it.

    Args:
        array: (*spatial) in nnU-Net's array axis order, 2D images as (1, y, x); float32, or uint8 where 255 is 1.
        path: The file; its ending decides the format.
        geometry: Of the segmentation.

    Returns:
        What was written: the image and, for tif, the file with its spacing.

    Raises:
        UserError: The format cannot hold the image, or the file cannot be written in full.
    """
    write = _writer(path, geometry)
    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    scaled = array.dtype == np.uint8 and ending in (".nii", ".nii.gz")
    with replacing(path, ending=ending) as temporary, verified(temporary):
        if scaled:
            _write_scaled(write, np.ascontiguousarray(array), temporary, geometry)
        else:
            write(np.ascontiguousarray(array), str(temporary), geometry)
    if write is not _write_tiff:
        return [path]
    # nnU-Net keeps the spacing of tif files in a file beside them
    spacing_file = path.with_suffix(".json")
    write_atomically(spacing_file, json.dumps({"spacing": geometry.spacing_mm}))
    return [path, spacing_file]


def _write_scaled(write: Write, array: np.ndarray, path: Path, geometry: Geometry) -> None:
    """Have readers of a NIfTI file take 255 for 1: SimpleITK writes no slope, so it is put into the finished header."""
    import nibabel

    plain = path if path.suffix == ".nii" else path.with_suffix("")
    try:
        write(array, str(plain), geometry)
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


def _writer(path: Path, geometry: Geometry) -> Write:
    if geometry.library:
        return {"SimpleITK": _write_sitk, "nibabel": _write_nibabel}[geometry.library]
    if geometry.is_2d:
        return _write_picture
    if path.suffix.lower() in (".tif", ".tiff"):
        return _write_tiff
    raise UserError(f"{path}: nnU-Net's reader of this data set keeps no geometry that is known here: no map written.")


def _write_sitk(array: np.ndarray, path: str, geometry: Geometry) -> None:
    import SimpleITK as sitk

    affine: Any = geometry.affine  # not None, with this library
    directions: Any = geometry.directions
    n = len(affine) - 1
    image = sitk.GetImageFromArray(array[0] if n == 2 else array)
    image.SetSpacing(geometry.spacing_mm[: -n - 1 : -1])
    image.SetOrigin(affine[:n, n].tolist())
    image.SetDirection(directions.ravel().tolist())
    if geometry.file_orientation:  # the reader turned the image, turn it back
        image = sitk.DICOMOrient(image, geometry.file_orientation)
    sitk.WriteImage(image, path, True)


def _write_nibabel(array: np.ndarray, path: str, geometry: Geometry) -> None:
    import nibabel
    from nibabel.orientations import axcodes2ornt, ornt_transform

    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), RAS_TO_LPS @ geometry.affine)
    if geometry.file_orientation:  # the reader turned the image to RAS, turn it back
        image = image.as_reoriented(ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(geometry.file_orientation)))
    nibabel.save(image, path)


def _write_tiff(array: np.ndarray, path: str, geometry: Geometry) -> None:
    import tifffile

    tifffile.imwrite(path, array, compression="zlib", photometric="minisblack")  # else 3 or 4 slices become colours


def _write_picture(array: np.ndarray, path: str, geometry: Geometry) -> None:
    from skimage import io

    io.imsave(path, array[0], check_contrast=False)
