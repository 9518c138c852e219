"""Studies of DICOM files, written by pydicom: oblique, anisotropic series of CT images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

SPACING_MM = (2.5, 0.7, 0.9)  # between slices, rows, columns
SHAPE = (9, 17, 14)
ORIGIN_MM = (-30.0, 12.0, 55.0)
MISSING = object()
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
    """(3, 3) rotation: columns are the directions along a row, along a column, and from slice to
    slice."""
    return Rotation.from_euler("XYZ", (20, -15, 35), degrees=True).as_matrix()


def scan(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """(slice, row, column) noise in the range of the training."""
    return np.random.default_rng(seed).permutation(int(np.prod(shape))).reshape(shape) % 100


def write_series(
    folder: Path,
    values: np.ndarray,
    *,
    number: int = 3,
    order: Any = None,
    syntax: str = "ExplicitVRLittleEndian",
    **changes: Any,
) -> list[Path]:
    """One file a slice, the first one first; the stored numbers are 10 larger than ``values``.

    ``order`` is that of the file names; ``changes`` are attributes of every file or, as a
    dictionary, of slices.
    """
    from pydicom import uid
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    series, frame, study = generate_uid(), generate_uid(), generate_uid()
    turn, paths, kind = oblique(), [], getattr(uid, syntax)
    common: dict[str, Any] = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "FrameOfReferenceUID": frame,
    }
    common |= {
        "PatientID": "patient-7",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "",
        "PatientSex": "",
    }
    common |= {
        "StudyID": "1",
        "StudyDate": "20260101",
        "StudyTime": "000000",
        "AccessionNumber": "",
        "Modality": "CT",
    }
    common |= {
        "ReferringPhysicianName": "",
        "SeriesNumber": number,
        "SeriesDescription": "Head: thin/soft",
    }
    common |= {
        "PixelSpacing": list(SPACING_MM[1:]),
        "SliceThickness": SPACING_MM[0],
        "SamplesPerPixel": 1,
    }
    common |= {"ImageOrientationPatient": [f"{value:.9f}" for value in (*turn[:, 0], *turn[:, 1])]}
    common |= {
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelRepresentation": 1,
        "BitsAllocated": 16,
    }
    common |= {"BitsStored": 16, "HighBit": 15, "RescaleSlope": 1, "RescaleIntercept": -10}
    for i, plane in enumerate(values):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = CTImageStorage
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        place = np.array(ORIGIN_MM) + turn[:, 2] * SPACING_MM[0] * i
        ours = {"InstanceNumber": i + 1, "Rows": plane.shape[0], "Columns": plane.shape[1]}
        ours |= {"ImagePositionPatient": [f"{value:.9f}" for value in place]}
        ours |= {"PixelData": (plane + 10).astype("<i2").tobytes()}
        changed = {
            name: value.get(i, MISSING) if isinstance(value, dict) else value
            for name, value in changes.items()
        }
        for name, value in [*(common | ours).items(), *changed.items()]:
            if value is not MISSING:
                setattr(image, name, value)
        paths.append(folder / f"IM{i if order is None else order[i]:04d}")
        if kind.is_encapsulated:
            image.compress(kind)
        elif not kind.is_little_endian:
            image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
        image.file_meta.TransferSyntaxUID = kind
        image.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_codes(path: Path, codes: Any = None) -> Path:
    """JSON file of codes."""
    path.write_text(json.dumps(CODES if codes is None else codes))
    return path
