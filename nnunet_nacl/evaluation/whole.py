"""Whether an image file is whole.

SimpleITK reads a NIfTI file that a full disk or a broken copy cut off as if all that is missing were background, and in
place of what a GIPL file lacks whatever was in the memory. It does not notice when it writes such files, either.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

__all__ = ["why_broken"]

_BLOCK = 1 << 20


def why_broken(path: Path) -> str:
    """What is missing from a NIfTI, GIPL or any gzip file, in words; empty if nothing is, or if the format cannot tell.

    Raises:
        OSError: The file cannot be opened.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        compressed = path.suffix == ".gz" and file.read(2) == b"\x1f\x8b"
    if compressed:
        try:
            size = _inflated_size(path)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            return f"truncated or corrupt: {error}"
    expected = 0
    if path.name.endswith((".nii", ".nii.gz")):
        expected = _nifti_size(path)
    elif path.suffix == ".gipl":
        expected = _gipl_size(path)
    return f"truncated: {size} of {expected} bytes" if size < expected else ""


def _inflated_size(path: Path) -> int:
    size = 0
    with gzip.open(path) as file:  # also verifies the checksum
        while block := file.read(_BLOCK):
            size += len(block)
    return size


def _nifti_size(path: Path) -> int:
    """Bytes that the header promises, itself included; 0 if there is no such header: the reader will say so."""
    import nibabel

    try:
        voxels = nibabel.load(path).dataobj
        return int(voxels.offset) + math.prod(map(int, voxels.shape)) * voxels.dtype.itemsize
    except Exception:
        return 0


def _gipl_size(path: Path) -> int:
    """As ``_nifti_size``."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 0
    pixel = sitk.Image([1] * reader.GetDimension(), reader.GetPixelID())
    return 256 + math.prod(reader.GetSize()) * pixel.GetSizeOfPixelComponent()
