"""Writes maps as images that lie exactly where the segmentation lies, in the same file format.

nnU-Net's own writers take integers only (they cast to uint8 or uint16, whichever the largest value needs), so the maps
are written here, from the properties that nnU-Net's readers return: the same axis order, spacing, origin, direction or
affine matrix, and for the reorienting readers the way back to the orientation of the file.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import write_atomically
from nnunet_nacl.json_files import first_line

__all__ = ["DTYPES", "TEMPORARY_PREFIX", "check_dtype", "is_2d", "to_dtype", "voxel_unit", "write_image"]

DTYPES = ("uint8", "float32")
TEMPORARY_PREFIX = ".unfinished-"

_INTEGER_ENDINGS = (".png", ".bmp")


def to_dtype(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values in [0, 1] as stored: float32 as they are, or uint8 with 255 = 1.

    uint8 is round(255 x), halves to the even neighbour: read back as stored / 255, it is off by at most 1/510.
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


def is_2d(properties: dict[str, Any]) -> bool:
    """Whether the image is 2D: nnU-Net's readers then give the first axis 999 times the largest spacing."""
    spacing = [float(value) for value in properties["spacing"]]
    return len(spacing) == 3 and spacing[0] > 900 * max(spacing[1:])


def voxel_unit(properties: dict[str, Any]) -> tuple[float, str]:
    """Size of a voxel and its unit: ``ml`` in 3D, ``mm2`` in 2D, ``pixels`` for pictures without spacing."""
    spacing = [float(value) for value in properties["spacing"]]
    if not is_2d(properties):
        return float(np.prod(spacing)) / 1000, "ml"
    if "sitk_stuff" in properties:
        return spacing[1] * spacing[2], "mm2"
    return 1.0, "pixels"


def write_image(array: np.ndarray, path: Path, properties: dict[str, Any]) -> list[Path]:
    """Write a scalar image under a temporary name with the same ending, then rename it.

    Args:
        array: (*spatial) in nnU-Net's array axis order, 2D images as (1, y, x); uint8, uint16 or float32.
        path: The file; its ending decides the format.
        properties: From nnU-Net's reader of the segmentation.

    Returns:
        What was written: the image and, for tif, the file with its spacing.

    Raises:
        UserError: The format cannot hold the image, or the file cannot be written.
    """
    write = _writer(path, properties)
    with _replacing(path) as temporary:
        try:
            write(np.ascontiguousarray(array), str(temporary), properties)
        except OSError:
            raise
        except Exception as error:  # SimpleITK reports a full disk as RuntimeError
            raise UserError(
                f"{path}: cannot be written ({first_line(error)}); free space or choose another -o."
            ) from None
    if write is not _write_tiff:
        return [path]
    # nnU-Net keeps the spacing of tif files in a file beside them
    spacing_file = path.with_suffix(".json")
    write_atomically(spacing_file, json.dumps({"spacing": [float(value) for value in properties["spacing"]]}))
    return [path, spacing_file]


def _writer(path: Path, properties: dict[str, Any]):
    if "sitk_stuff" in properties:
        return _write_sitk
    if "nibabel_stuff" in properties:
        return _write_nibabel
    if is_2d(properties):
        return _write_picture
    if path.suffix.lower() in (".tif", ".tiff"):
        return _write_tiff
    raise UserError(f"{path}: nnU-Net's reader of this data set keeps no geometry that is known here: no map written.")


def _write_sitk(array: np.ndarray, path: str, properties: dict[str, Any]) -> None:
    import SimpleITK as sitk

    geometry = properties["sitk_stuff"]
    image = sitk.GetImageFromArray(array[0] if len(geometry["spacing"]) == 2 else array)
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    if "original_orientation" in geometry:  # the reader turned the image, turn it back
        image = sitk.DICOMOrient(image, geometry["original_orientation"])
    sitk.WriteImage(image, path, True)


def _write_nibabel(array: np.ndarray, path: str, properties: dict[str, Any]) -> None:
    import nibabel
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    geometry = properties["nibabel_stuff"]
    affine = geometry.get("reoriented_affine", geometry["original_affine"])
    image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
    if "reoriented_affine" in geometry:  # the reader turned the image to RAS, turn it back
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(geometry["original_affine"]))
        image = image.as_reoriented(back)
    nibabel.save(image, path)


def _write_tiff(array: np.ndarray, path: str, properties: dict[str, Any]) -> None:
    import tifffile

    tifffile.imwrite(path, array, compression="zlib", photometric="minisblack")  # else 3 or 4 slices become colours


def _write_picture(array: np.ndarray, path: str, properties: dict[str, Any]) -> None:
    from skimage import io

    io.imsave(path, array[0], check_contrast=False)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    # the ending tells the libraries which format to write; the rest is short, for the name itself may be at its limit
    ending = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}{ending}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or first_line(error)}); free space or choose another -o."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
