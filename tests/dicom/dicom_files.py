"""Studies of DICOM files, written by pydicom: oblique, anisotropic series of CT images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

SPACING_MM = (2.5, 0.7, 0.9)  # between slices, rows, columns
SHAPE = (9, 17, 14)
ORIGIN_MM = (-30.0, 12.0, 55.0)
CODES = {
    "anterior": {"code": "4421005", "meaning": "Cell structure", "category": "AnatomicalStructure"},
    "posterior": {"code": "X1", "meaning": "Private part", "category": "Tissue", "scheme": "99TEST"},
}


def oblique() -> np.ndarray:
    """(3, 3) rotation: columns are the directions along a row, along a column, and from slice to slice."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad((20, -15, 35))):
        j, k = (other for other in range(3) if other != axis)
        step = np.eye(3)
        step[j, j] = step[k, k] = np.cos(angle)
        step[j, k], step[k, j] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    return turn


def scan(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """(slice, row, column) noise in the range of the training."""
    return np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape) % 100


def write_series(
    folder: Path,
    values: np.ndarray,
    *,
    number: int = 3,
    study: str | None = None,
    order: Any = None,
    syntax: str = "ExplicitVRLittleEndian",
    **changes: Any,
) -> list[Path]:
    """One file a slice, the first one first; the stored numbers are 10 larger than ``values``.

    Args:
        folder: Made where it is missing.
        values: (slice, row, column).
        number: Of the series.
        study: UID; None makes one.
        order: Of the file names, if they shall not follow the slices.
        syntax: Name of the transfer syntax, one that pydicom or pyjpegls writes.
        changes: Attributes of every file, or of one: a dictionary by slice.
    """
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    series, frame, study = generate_uid(), generate_uid(), study or generate_uid()
    turn, paths = oblique(), []
    for i, plane in enumerate(values):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.PatientID, one.PatientName, one.PatientBirthDate, one.PatientSex = "patient-7", "Doe^Jane", "", ""
        one.StudyID, one.StudyDate, one.StudyTime, one.AccessionNumber = "1", "20260101", "000000", ""
        one.ReferringPhysicianName, one.Modality = "", "CT"
        one.SeriesNumber, one.SeriesDescription, one.InstanceNumber = number, "Head: thin/soft", i + 1
        one.Rows, one.Columns = plane.shape
        one.PixelSpacing, one.SliceThickness = list(SPACING_MM[1:]), SPACING_MM[0]
        one.ImageOrientationPatient = [f"{value:.9f}" for value in (*turn[:, 0], *turn[:, 1])]
        place = np.array(ORIGIN_MM) + turn[:, 2] * SPACING_MM[0] * i
        one.ImagePositionPatient = [f"{value:.9f}" for value in place]
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 1
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.RescaleSlope, one.RescaleIntercept = 1, -10
        one.PixelData = (plane + 10).astype("<i2").tobytes()
        for name, value in changes.items():
            if not isinstance(value, dict) or i in value:
                setattr(one, name, value[i] if isinstance(value, dict) else value)
        paths.append(folder / f"IM{i if order is None else order[i]:04d}")
        kind = getattr(uid, syntax)
        if kind.is_encapsulated:
            one.compress(kind)
        elif not kind.is_little_endian:
            one.PixelData = np.frombuffer(one.PixelData, "<i2").astype(">i2").tobytes()
        one.file_meta.TransferSyntaxUID = kind
        one.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_codes(path: Path, codes: Any = None) -> Path:
    """JSON file of codes."""
    path.write_text(json.dumps(CODES if codes is None else codes))
    return path
