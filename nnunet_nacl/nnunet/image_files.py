"""Reads images and segmentations by nnU-Net's own readers, and the probabilities that nnU-Net
saved.

An evaluation spends nearly all its time unpacking these: `imagecodecs` takes 0.6 to 0.7 times as
long as NumPy. Shape and type are checked before, as a small file can promise more than memory
holds.
"""

from __future__ import annotations

import contextlib
import copy
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.errors import UserError, describe, first_line
from nnunet_nacl.files import regular_only
from nnunet_nacl.images import check_whole, quiet, read_header

RERUN = "predict these cases again: nnUNetv2_predict with `--save_probabilities`; the validation \
cases of a model by `nnunet_nacl evaluate ... --predict`, or nnU-Net with `--npz`"
"""What to do where probabilities are missing or damaged."""

_PROBABILITIES = "probabilities.npy"


def read_segmentation(reader: Any, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """(*spatial) label map and where it lies, by one of nnU-Net's readers; UserError if it cannot
    be read."""
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


def read_images(reader: Any, files: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
    """(C, *spatial) image and where it lies; UserError, which names the file, if one cannot be read
    or is cut off."""
    for path in files:
        check_whole(path, "an image")
    try:
        with quiet():
            return reader.read_images([str(path) for path in files])
    except Exception as error:  # the readers raise whatever their libraries do
        named = f"{files[0]} and its other channels" if len(files) > 1 else str(files[0])
        if len(files) > 1 and not str(error):  # nnU-Net prints what differs
            raise UserError(
                f"{named} differ in shape or spacing; bring them to one grid."
            ) from None
        raise UserError(
            f"{named}: cannot be read as an image ({first_line(error)}); restore it."
        ) from None


def channels_apart(files: Sequence[Path]) -> str:
    """Which channels lie apart by their headers, and in what, as nnU-Net takes them all the same;
    else empty."""
    with contextlib.suppress(RuntimeError):  # what SimpleITK does not read, nibabel may
        first, *others = map(read_header, files)
        for path, header in zip(files[1:], others):
            for what in ("Spacing", "Origin", "Direction"):
                one, other = (getattr(each, f"Get{what}")() for each in (first, header))
                if not np.allclose(one, other, atol=1e-3):
                    return f"{path.name} lies apart from {files[0].name}: {what.lower()}"
    return ""


def spacing_file(path: Path) -> Path | None:
    """Where nnU-Net keeps the spacing of a 3D tif, for all channels of an image; None if there is
    no such file."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    places = (
        path.with_name(f"{stem}.json") for stem in (path.stem, re.sub("_[0-9]{4}$", "", path.stem))
    )
    return next(filter(Path.is_file, places), None)


def read_probabilities(
    path: Path, labels: Labels, spatial: tuple[int, ...], beside: str
) -> np.ndarray:
    """(K, *spatial) probabilities of an npz file, its checksum verified, in a type that the metrics
    take.

    UserError if it is missing, cut off or corrupt, no floating point, or not of the shape of
    ``beside``, in words.
    """
    expected = (len(labels.values), *spatial)
    try:
        with open(path, "rb", opener=regular_only) as file, zipfile.ZipFile(file) as archive:
            member = archive.getinfo(_PROBABILITIES)
            with archive.open(member) as stream:
                if (version := np.lib.format.read_magic(stream)) != (1, 0):
                    raise ValueError(f"unknown npy version {version}")
                shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
                start = stream.tell()
            if shape != expected:
                kind = (
                    f"{expected[0]} {'regions' if labels.regions else 'classes'} of dataset.json"
                    f" and the {beside}"
                )
                raise UserError(
                    f"{path}: probabilities of shape {shape}, but {kind} ask for {expected};"
                    f" {RERUN}."
                )
            if dtype.kind != "f":
                raise UserError(
                    f"{path}: probabilities must be floating point, got {dtype}; {RERUN}."
                )
            if member.file_size != start + np.prod(shape, dtype=object) * dtype.itemsize:
                raise ValueError("the directory promises another size than the array has")
            content = _inflate(archive, member)
    except (UserError, MemoryError):
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {RERUN}.") from None
    except Exception as error:
        # zip, zlib, npy and imagecodecs each raise their own kinds on broken bytes
        if isinstance(error, OSError) and error.filename is not None:  # it cannot be opened
            raise UserError(describe(error)) from None
        raise UserError(f"{path}: truncated or corrupt ({first_line(error)}); {RERUN}.") from error
    probs = content[start:].view(dtype).reshape(shape, order="F" if fortran_order else "C")
    return probs if dtype.isnative and dtype.itemsize in (2, 4, 8) else probs.astype(np.float64)


def _inflate(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a member, its checksum verified."""
    if member.compress_type != zipfile.ZIP_DEFLATED:
        return np.frombuffer(bytearray(archive.read(member)), np.uint8)
    content: Any = np.empty(member.file_size, dtype=np.uint8)
    # as if it were not compressed: its bytes as they lie in the file
    stored: Any = copy.copy(member)
    stored.compress_type, stored.file_size, stored.CRC = (
        zipfile.ZIP_STORED,
        member.compress_size,
        None,
    )
    imagecodecs.deflate_decode(archive.read(stored), raw=True, out=content)
    # several times as fast as zlib's
    checksum: Any = getattr(imagecodecs, "deflate_crc32", zlib.crc32)
    if checksum(content) != member.CRC:
        raise ValueError("wrong checksum")
    return content
