"""A DICOM series as an image that nnU-Net's readers take."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from nnunet_nacl.dicom.series import affine_of_series, read_headers
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.image_files import quiet, read_header, verified
from nnunet_nacl.json_files import first_line


def orientation_of(images: Iterable[Path]) -> str:
    """Where the axes (x, y, z) of most of some volumes point, such as ``LPS``; empty where none can be read."""
    import SimpleITK as sitk

    found: Counter[str] = Counter()
    for path in images:
        with contextlib.suppress(RuntimeError):
            reader = read_header(path)
            if reader.GetDimension() == 3:
                directions = reader.GetDirection()
                found[sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(directions)] += 1
    return max(found, key=found.__getitem__, default="")


@contextlib.contextmanager
def image_of_series(files: Sequence[Path], orientation: str) -> Iterator[Path]:
    """A temporary NIfTI file of a series, which each of nnU-Net's readers of volumes takes; gone after the block.

    Args:
        files: In the order of the slices.
        orientation: Where its axes (x, y, z) shall point. A network knows scans by the order of their voxels, which
            is another in DICOM files than in NIfTI files that were converted from them.

    Raises:
        UserError: A file cannot be read or has other pixel data than its header says, which the message names; or there
            is no room for the image.
    """
    import SimpleITK as sitk

    headers = read_headers(files)
    affine, voxels = affine_of_series(headers), np.empty((len(files), headers[0].Rows, headers[0].Columns), np.float32)
    for plane, path in zip(voxels, files):
        plane[...] = _read_plane(path, plane.shape)
    image = sitk.GetImageFromArray(voxels)
    del voxels
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image = sitk.DICOMOrient(image, orientation)
    with tempfile.TemporaryDirectory(prefix="nnunet_nacl-") as folder:
        path = Path(folder) / "series.nii"
        try:
            with verified(path):
                sitk.WriteImage(image, str(path))
        except OSError as error:
            raise UserError(f"{folder}: no room for the image of {files[0].parent} ({error}); free space.") from None
        del image
        yield path


def _read_plane(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """(rows, columns) float32 values of a slice; UserError if its pixel data are not as many as its header says.

    SimpleITK's reader fails where a JPEG stream ends early, but fills what else is missing with whatever was in memory.
    """
    import SimpleITK as sitk
    from pydicom import dcmread, uid
    from pydicom.pixels import pixel_array

    try:
        with quiet():
            image = dcmread(path)
            if image.get("HighBit", 0) >= image.BitsStored:  # which that reader does not shift
                raise ValueError(f"HighBit {image.HighBit}, BitsStored {image.BitsStored}")
            syntax, expected = image.file_meta.TransferSyntaxUID, image.Rows * image.Columns * image.BitsAllocated // 8
            if syntax in (*uid.UncompressedTransferSyntaxes, *uid.RLETransferSyntaxes):
                pixel_array(image)  # raises if there are fewer
                if not syntax.is_encapsulated and any(image.PixelData[expected:]):  # zeros pad it
                    raise ValueError(f"{len(image.PixelData)} bytes of pixel data, not {expected}")
        plane = sitk.GetArrayFromImage(sitk.ReadImage(str(path), sitk.sitkFloat32))[0]
        if plane.shape != shape:  # a JPEG stream has a size of its own
            raise ValueError(f"{plane.shape} voxels, not {shape}")
    except Exception as error:  # both libraries raise anything of damaged files
        again = "restore it, or export the series again without compression"
        raise UserError(f"{path}: its voxels cannot be read ({first_line(error)}); {again}.") from None
    return plane
