"""Studies of DICOM files, written by pydicom: oblique, anisotropic series of CT images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

SPACING_MM = (2.5, 0.7, 0.9)  # between slices, rows, columns
SHAPE = (9, 17, 14)
ORIGIN_MM = (-30.0, 12.0, 55.0)
CODES = {
    "anterior": {"code": "4421005", "meaning": "Cell structure", "category": "AnatomicalStructure"},
    "posterior": {
        "code": "X1",
        "meaning": "Private part",
        "category": "Tissue",
        "scheme": "99TEST",
    },
}


def oblique() -> np.ndarray:
    """(3, 3) rotation: along a row, along a column, and from slice to slice, by column."""
    return Rotation.from_euler("XYZ", (20, -15, 35), degrees=True).as_matrix()


def scan(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """(slice, row, column) noise in the range of the training."""
    return np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape) % 100


COMMON = {
    "PatientID": "patient-7",
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "",
    "PatientSex": "",
    "StudyID": "1",
    "StudyDate": "20260101",
    "StudyTime": "000000",
    "AccessionNumber": "",
    "Modality": "CT",
    "ReferringPhysicianName": "",
    "SeriesDescription": "Head: thin/soft",
    "PixelSpacing": list(SPACING_MM[1:]),
    "SliceThickness": SPACING_MM[0],
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelRepresentation": 1,
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "RescaleSlope": 1,
    "RescaleIntercept": -10,
}
"""What all slices of a series have, unless something else is asked for."""


def write_series(
    folder: Path,
    values: np.ndarray,
    *,
    number: int = 3,
    order: Sequence[int] | None = None,
    syntax: str = "ExplicitVRLittleEndian",
    **changes: Any,
) -> list[Path]:
    """Write one file a slice; the stored numbers are 10 larger than ``values``.

    Args:
        folder: Of the files.
        values: (slice, row, column).
        number: Of the series.
        order: Of the file names; None: as the slices lie.
        syntax: Transfer syntax, as pydicom names it.
        changes: Attributes of every file or, as a dictionary by number, of single slices.

    Returns:
        The files in the order of the slices.
    """
    from pydicom.uid import generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    attributes_of_series = {
        **COMMON,
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "SeriesNumber": number,
        "ImageOrientationPatient": as_decimals([*oblique()[:, 0], *oblique()[:, 1]]),
    }
    paths = []
    for slice_number, plane in enumerate(values):
        position = np.array(ORIGIN_MM) + oblique()[:, 2] * SPACING_MM[0] * slice_number
        attributes = {
            **attributes_of_series,
            "InstanceNumber": slice_number + 1,
            "Rows": plane.shape[0],
            "Columns": plane.shape[1],
            "ImagePositionPatient": as_decimals(position),
            "PixelData": (plane + 10).astype("<i2").tobytes(),
        }
        for name, value in changes.items():
            if not isinstance(value, dict):
                attributes[name] = value
            elif slice_number in value:
                attributes[name] = value[slice_number]
        name_number = slice_number if order is None else order[slice_number]
        path = folder / f"IM{name_number:04d}"
        save_image(path, attributes, syntax)
        paths.append(path)
    return paths


def as_decimals(numbers: Iterable[float], digits: int = 9) -> list[str]:
    """Numbers as headers have them."""
    return [f"{float(number):.{digits}f}" for number in numbers]


def save_image(path: Path, attributes: dict[str, Any], syntax: str) -> None:
    """Save a CT image with these attributes in a transfer syntax."""
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset

    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    image.SOPClassUID = uid.CTImageStorage
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID
    for name, value in attributes.items():
        setattr(image, name, value)
    kind = getattr(uid, syntax)
    if kind.is_encapsulated:
        image.compress(kind)
    elif not kind.is_little_endian:
        image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
    image.file_meta.TransferSyntaxUID = kind
    image.save_as(path, enforce_file_format=True)


def write_codes(path: Path, codes: object = None) -> Path:
    """JSON file of codes."""
    path.write_text(json.dumps(CODES if codes is None else codes))
    return path
