"""Reads images and segmentations by nnU-Net's own readers, and probabilities that it saved.

An evaluation spends nearly all its time unpacking these: `imagecodecs` takes 0.6 to 0.7 times as
long as NumPy. Shape and type are checked before, as a small file can promise more than memory
holds.
"""

from __future__ import annotations

import copy
import math
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import imagecodecs
import numpy as np

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.utilities.errors import UserError, describe, first_line
from nnunet_nacl.utilities.files import regular_only
from nnunet_nacl.utilities.images import check_whole, quiet, read_header

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from SimpleITK import ImageFileReader

RERUN = "predict these cases again: nnUNetv2_predict with `--save_probabilities`; the validation \
cases of a model by `nnunet_nacl evaluate ... --predict`, or nnU-Net with `--npz`"
"""What to do where probabilities are missing or damaged."""

_PROBABILITIES = "probabilities.npy"


def read_segmentation(reader: BaseReaderWriter, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """(*spatial) label map and where it lies, by one of nnU-Net's readers.

    Raises:
        UserError: The file cannot be read, or is no segmentation.
    """
    check_whole(path, "a segmentation")
    try:
        with quiet():
            array, properties = reader.read_seg(str(path))
    except Exception as error:  # the readers raise whatever their libraries do
        raise UserError(
            f"{path}: cannot be read as a segmentation ({first_line(error)}); restore it."
        ) from error
    # colours of a palette, or several volumes
    if any((channel != array[0]).any() for channel in array[1:]):
        raise UserError(
            f"{path}: {len(array)} channels that differ; a segmentation has one, of labels."
        )
    # equal volumes, or one, would pass for an image
    if len(properties.get("sitk_stuff", {}).get("spacing", ())) > 3:
        raise UserError(
            f"{path}: four dimensions; a segmentation has at most three: save one volume."
        )
    return array[0], properties


def read_images(
    reader: BaseReaderWriter, files: Sequence[Path]
) -> tuple[np.ndarray, dict[str, Any]]:
    """(C, *spatial) image and where it lies, by one of nnU-Net's readers.

    Raises:
        UserError: A file cannot be read or is cut off, or channels differ in shape or spacing.
    """
    for path in files:
        check_whole(path, "an image")
    try:
        with quiet():
            return reader.read_images([str(path) for path in files])
    except Exception as error:  # the readers raise whatever their libraries do
        named = str(files[0])
        if len(files) > 1:
            named = f"{files[0]} and its other channels"
            if not str(error):  # nnU-Net prints what differs
                raise UserError(
                    f"{named} differ in shape or spacing; bring them to one grid."
                ) from None
        raise UserError(
            f"{named}: cannot be read as an image ({first_line(error)}); restore it."
        ) from None


def channels_apart(files: Sequence[Path]) -> str:
    """Which channel of an image lies apart by its header, and in what; empty where none does.

    nnU-Net takes such channels all the same.
    """
    try:
        first_header, *headers = map(read_header, files)
    except RuntimeError:  # what SimpleITK does not read, nibabel may: then nothing is said
        return ""
    position = _position_in_header(first_header)
    for path, header in zip(files[1:], headers):
        for what, values in _position_in_header(header).items():
            if not np.allclose(position[what], values, atol=1e-3):
                return f"{path.name} lies apart from {files[0].name}: {what}"
    return ""


def _position_in_header(header: ImageFileReader) -> dict[str, tuple[float, ...]]:
    """Where an image lies, by its header as SimpleITK reads it."""
    return {
        "spacing": header.GetSpacing(),
        "origin": header.GetOrigin(),
        "direction": header.GetDirection(),
    }


def spacing_file(path: Path) -> Path | None:
    """Where nnU-Net keeps the spacing of a 3D tif, for all channels; None without such a file."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    case = re.sub("_[0-9]{4}$", "", path.stem)
    for stem in (path.stem, case):
        file = path.with_name(f"{stem}.json")
        if file.is_file():
            return file
    return None


def read_probabilities(
    path: Path, labels: Labels, spatial: tuple[int, ...], beside: str
) -> np.ndarray:
    """(C, *spatial) probabilities of an npz file, in a type that the metrics take.

    Args:
        path: The file, whose checksum is verified.
        labels: C is the number of its classes or regions.
        spatial: Shape that they must have.
        beside: What has this shape, in words for the message, such as ``segmentation A.nii.gz``.

    Raises:
        UserError: The file is missing, cut off or corrupt, or does not hold floating-point numbers
            of the shape.
    """
    try:
        with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
            probs = _read_array(archive, path, labels, spatial, beside)
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {RERUN}.") from None
    except Exception as error:
        # zip, zlib, npy and imagecodecs each raise their own kinds on broken bytes
        if isinstance(error, OSError) and error.filename is not None:  # it cannot be opened
            raise UserError(describe(error)) from None
        raise UserError(f"{path}: truncated or corrupt ({first_line(error)}); {RERUN}.") from error
    if probs.dtype.isnative and probs.dtype.itemsize in (2, 4, 8):
        return probs
    return probs.astype(np.float64)


def _read_array(
    archive: zipfile.ZipFile, path: Path, labels: Labels, spatial: tuple[int, ...], beside: str
) -> np.ndarray:
    """The array of an opened npz file; it is unpacked only when its header is as it must be."""
    member = archive.getinfo(_PROBABILITIES)
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"unknown npy version {version}")
        shape, is_fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        header_bytes = stream.tell()
    expected_shape = (len(labels.values), *spatial)
    if shape != expected_shape:
        channels = "regions" if labels.regions else "classes"
        raise UserError(
            f"{path}: probabilities of shape {shape}, but {expected_shape[0]} {channels} of"
            f" dataset.json and the {beside} ask for {expected_shape}; {RERUN}."
        )
    if dtype.kind != "f":
        raise UserError(f"{path}: probabilities must be floating point, got {dtype}; {RERUN}.")
    if member.file_size != header_bytes + math.prod(shape) * dtype.itemsize:
        raise ValueError("the directory promises another size than the array has")
    content = _inflate(archive, member)
    order: Literal["F", "C"] = "F" if is_fortran_order else "C"
    return content[header_bytes:].view(dtype).reshape(shape, order=order)


def _inflate(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a member, its checksum verified."""
    if member.compress_type != zipfile.ZIP_DEFLATED:
        return np.frombuffer(bytearray(archive.read(member)), np.uint8)
    # as if it were not compressed: its bytes as they lie in the file
    stored = copy.copy(member)
    stored.compress_type = zipfile.ZIP_STORED
    stored.file_size = member.compress_size
    stored.CRC = None  # type: ignore[assignment]  # not checked: it is that of the content
    content: np.ndarray = np.empty(member.file_size, dtype=np.uint8)
    imagecodecs.deflate_decode(archive.read(stored), raw=True, out=content.data)
    # several times as fast as zlib's
    checksum = getattr(imagecodecs, "deflate_crc32", zlib.crc32)
    if checksum(content.data) != member.CRC:
        raise ValueError("wrong checksum")
    return content
