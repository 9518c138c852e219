"""Reads segmentations by nnU-Net's own reader classes, so that every file ending and orientation is taken.

Before that it makes sure that a NIfTI file is whole: SimpleITK reads one that a full disk or a broken copy cut off as
if all that is missing were background, and so it reads voxels that are no number. It does not notice when it writes
such files, either.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.geometry import Geometry, geometry_difference
from nnunet_nacl.errors import UserError, first_line, one_line
from nnunet_nacl.files import regular_only

_BLOCK = 1 << 20


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what nnU-Net's Python code prints and warns inside the block, which would tear a table or a progress bar.

    Exceptions pass.
    """
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        logging.raiseExceptions, before = False, logging.raiseExceptions
        try:
            yield
        finally:
            logging.raiseExceptions = before


def read_segmentation(reader: Any, path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """(*spatial) label map and where it lies, by one of nnU-Net's readers; UserError if it cannot be read."""
    check_whole(path, "a segmentation")
    try:
        with quiet():
            array, properties = reader.read_seg(str(path))
    except Exception as error:  # the readers raise whatever their libraries do
        raise UserError(f"{path}: cannot be read as a segmentation ({first_line(error)}); restore it.") from error
    if any((channel != array[0]).any() for channel in array[1:]):  # colours of a palette, or several volumes
        raise UserError(f"{path}: {len(array)} channels that differ; a segmentation has one, of labels.")
    if len(properties.get("sitk_stuff", {}).get("spacing", ())) > 3:  # equal volumes, or one, would pass for an image
        raise UserError(f"{path}: four dimensions; a segmentation has at most three: save one volume.")
    return array[0], properties


def read_images(reader: Any, files: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
    """(C, *spatial) image and where it lies; UserError, which names the file, if one cannot be read or is cut off."""
    for path in files:
        check_whole(path, "an image")
    try:
        with quiet():
            return reader.read_images([str(path) for path in files])
    except Exception as error:  # the readers raise whatever their libraries do
        together = " and its other channels" if len(files) > 1 else ""
        if together and not str(error):  # nnU-Net prints what differs
            raise UserError(f"{files[0]}{together} differ in shape or spacing; bring them to one grid.") from None
        raise UserError(
            f"{files[0]}{together}: cannot be read as an image ({first_line(error)}); restore it."
        ) from None


def channels_apart(files: Sequence[Path]) -> str:
    """How channels lie apart by their headers, in words; empty if they do not. nnU-Net prints that, and takes them."""
    places = []
    with contextlib.suppress(RuntimeError):  # what SimpleITK does not read, nibabel may
        for path in files:
            reader = read_header(path)
            stuff = {name: getattr(reader, f"Get{name.title()}")() for name in ("spacing", "origin", "direction")}
            places.append(Geometry.of({"spacing": stuff["spacing"][::-1], "sitk_stuff": stuff}))
    for path, place in zip(files[1:], places[1:]):
        if differing := geometry_difference(places[0], place, (), ()):
            return f"{files[0].name} and {path.name} lie apart: {differing}"
    return ""


def spacing_file(path: Path) -> Path | None:
    """Where nnU-Net keeps the spacing of a 3D tif, of all channels of an image; None if there is no such file."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    places = (path.with_name(f"{stem}.json") for stem in (path.stem, re.sub("_[0-9]{4}$", "", path.stem)))
    return next(filter(Path.is_file, places), None)


def check_whole(path: Path, what: str) -> None:
    """UserError, before a library is given it, for a file whose name or content it could not take.

    Args:
        path: The file.
        what: What it should be, for the message: ``a segmentation``.
    """
    check_name(path)
    try:
        broken = why_broken(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore it or change its permissions.") from None
    if broken:
        raise UserError(f"{path}: cannot be read as {what} ({broken}); restore it.")


def check_name(path: Path) -> None:
    """UserError for a path that is not UTF-8: SimpleITK ends the whole process on it, with no exception to catch."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{one_line(str(path))}: the name is not UTF-8, which the image libraries need; rename it."
        ) from None


@contextlib.contextmanager
def verified(path: Path) -> Iterator[None]:
    """The block writes an image to ``path``; whatever keeps it from lying there in full is an OSError.

    SimpleITK reports a full disk as RuntimeError, or not at all.
    """
    try:
        with quiet():
            yield
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:
        raise OSError(errno.ENOSPC, first_line(error)) from None
    if problem := why_broken(path):
        raise OSError(errno.ENOSPC, problem)


def why_broken(path: Path) -> str:
    """What is wrong with an image file, in words; empty if nothing is.

    Of a NIfTI file the header is read and its size compared with what that promises; compressed data are unpacked. Of
    other formats nothing is known but that a file is not empty: their libraries notice most of what can be wrong.

    Raises:
        OSError: The file cannot be opened.
    """
    size = path.stat().st_size
    with open(path, "rb", opener=regular_only) as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    if not size:
        return "it is empty"
    if not path.name.lower().endswith((".nii", ".nii.gz")) or (path.suffix == ".gz" and not is_gzip):
        return ""  # SimpleITK reads a .nii.gz that is not compressed, nibabel does not
    import nibabel

    try:
        if path.suffix == ".gz":
            with gzip.open(path) as unpacked:  # also verifies the checksum
                size = sum(map(len, iter(lambda: unpacked.read(_BLOCK), b"")))
        image: Any = nibabel.load(path)
        voxels = image.dataobj
        expected = int(voxels.offset) + math.prod(map(int, voxels.shape)) * voxels.dtype.itemsize
        if size < expected:
            return f"truncated: {size} of {expected} bytes"
        if voxels.dtype.kind == "f" and not np.isfinite(voxels.get_unscaled()).all():
            return "it holds voxels that are NaN or infinite"
    except Exception as error:  # whatever the libraries raise of a header or stream
        return f"truncated or corrupt: {first_line(error)}"
    return ""


def read_header(path: Path) -> Any:
    """SimpleITK's reader of an image file whose header was read; RuntimeError if that is not possible."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader
