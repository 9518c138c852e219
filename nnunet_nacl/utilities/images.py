"""Refuses truncated image files, which SimpleITK reads as if nothing were missing.

It takes what was cut off a NIfTI file for background, reads NaN, and does not notice when a full
disk cuts off what it writes.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.utilities.errors import UserError, first_line, one_line
from nnunet_nacl.utilities.files import regular_only

_BLOCK = 1 << 20


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what nnU-Net's Python code prints and warns, which would tear a table or a progress
    bar."""
    sink = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(sink),
        contextlib.redirect_stderr(sink),
    ):
        warnings.simplefilter("ignore")
        # else logging prints what goes wrong in a handler, such as one whose stream is gone
        raised_before = logging.raiseExceptions
        logging.raiseExceptions = False
        try:
            yield
        finally:
            logging.raiseExceptions = raised_before


def check_whole(path: Path, what: str) -> None:
    """UserError for a file whose name or content no library could take; ``what`` it should be, as
    in "an image"."""
    check_name(path)
    try:
        broken = why_broken(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); restore it or change its permissions."
        ) from None
    if broken:
        raise UserError(f"{path}: cannot be read as {what} ({broken}); restore it.")


def check_name(path: Path) -> None:
    """UserError for a path that is not UTF-8: SimpleITK ends the whole process on it, with no
    exception to catch."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{one_line(str(path))}: the name is not UTF-8; rename it.") from None


@contextlib.contextmanager
def verified(path: Path) -> Iterator[None]:
    """The block writes an image to ``path``; OSError unless it lies there in full, which SimpleITK
    may not notice."""
    try:
        with quiet():
            yield
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:
        # each library raises its own kinds when it cannot write, mostly since the disk is full
        raise OSError(errno.ENOSPC, first_line(error)) from None
    problem = why_broken(path)
    if problem:
        raise OSError(errno.ENOSPC, problem)


def why_broken(path: Path) -> str:
    """What is wrong with an image file, in words; empty if nothing is. OSError if it cannot be
    opened.

    A NIfTI file must have the size that its header promises; of other formats their libraries
    notice most.
    """
    with open(path, "rb", opener=regular_only) as file:
        first_bytes = file.read(2)
    if not first_bytes:
        return "it is empty"
    if not path.name.lower().endswith((".nii", ".nii.gz")):
        return ""
    is_gzip = first_bytes == b"\x1f\x8b"
    if path.suffix == ".gz" and not is_gzip:
        return ""  # SimpleITK reads a .nii.gz that is not compressed, nibabel does not
    try:
        return _why_nifti_is_broken(path)
    except Exception as error:  # whatever the libraries raise of a header or stream
        return f"truncated or corrupt: {first_line(error)}"


def _why_nifti_is_broken(path: Path) -> str:
    """What is wrong with the size or the values of a NIfTI file; whatever nibabel and gzip raise
    where it cannot be read."""
    import nibabel

    size = _unpacked_size(path) if path.suffix == ".gz" else path.stat().st_size
    image: Any = nibabel.load(path)
    voxels = image.dataobj
    num_voxels = math.prod(int(length) for length in voxels.shape)
    expected_size = int(voxels.offset) + num_voxels * voxels.dtype.itemsize
    if size < expected_size:
        return f"truncated: {size} of {expected_size} bytes"
    if voxels.dtype.kind == "f" and not np.isfinite(voxels.get_unscaled()).all():
        return "it holds voxels that are NaN or infinite"
    return ""


def _unpacked_size(path: Path) -> int:
    """Bytes of a gzip file's content, read to its end, where its checksum is."""
    size = 0
    with gzip.open(path) as unpacked:
        while block := unpacked.read(_BLOCK):
            size += len(block)
    return size


def read_header(path: Path) -> Any:
    """SimpleITK's reader of an image file whose header was read; RuntimeError if that is not
    possible."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader
