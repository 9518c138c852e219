"""DICOM series as scans: which files belong together, and in what order.

One series of single-frame images is one scan. Its slices must be parallel, evenly spaced and stacked along their
normal: else no image array with one spacing says where its voxels lie.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import regular_only
from nnunet_nacl.io.image_files import check_name, quiet
from nnunet_nacl.json_files import first_line, one_line

_PLACE = ("FrameOfReferenceUID", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient")
_UIDS = ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
_NEEDED = (*_UIDS, "Rows", "Columns", "PhotometricInterpretation", *_PLACE)
_SCALE = ("RescaleSlope", "RescaleIntercept")
_COMMON = ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID")
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "ReferringPhysicianName")
_MAY_BE_EMPTY = (*_PATIENT, "StudyID", "StudyDate", "StudyTime", "AccessionNumber")
_SAME_COSINES, _UNIT_COSINES = 1e-3, 1e-2  # headers round them to three digits
_SHIFT_PIXELS, _SHIFT_SLICES = 0.25, 0.2
"""How far a slice may lie from where an even stack has it: headers round to 0.1 mm, a missing slice shifts by 1/3."""


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; those without that beginning are not looked at."""
    with contextlib.suppress(OSError), open(path, "rb", opener=regular_only) as file:
        return file.read(132)[128:] == b"DICM"
    return False


def find_series(folder: Path) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """The series of images in a folder and below it.

    Objects that are no images (reports, segmentations, DICOMDIR) are passed over.

    Args:
        folder: Of one or several studies.

    Returns:
        Files of each series that is a scan, in the order of the slices along their normal, and why others are none;
        both empty where there is no DICOM file. The name of a case is made of the series' number, its description
        and a hash of its UID, so it holds nothing of the patient, and stays the same among other series. Why a series
        is none may quote its headers, such as the IDs of two patients: all images of a series have one patient (ID,
        name, date of birth), study and frame of reference, since what is made of it is made for those of the first.
        An empty value is as good as a missing one, and neither the same as one that is given.

    Raises:
        UserError: There are DICOM files, but the packages that read them are missing.
    """
    files = [path for path in sorted(folder.rglob("*")) if is_dicom(path)]
    if not files:
        return {}, {}
    if not (util.find_spec("pydicom") and util.find_spec("highdicom")):
        raise UserError(f"{folder} holds DICOM files; to read them: pip install 'nnunet_nacl[dicom]'.")
    groups, problems = defaultdict(list), {}
    for path in files:
        try:
            header = _read(path, _TAGS)
        except UserError as error:
            problems[one_line(str(path.relative_to(folder)))] = str(error)
            continue
        if _is_image(header):
            groups[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    cases = {}
    for uid, images in groups.items():
        first, header = images[0]
        name = one_line(str(first.relative_to(folder)))
        try:
            name = _name_of(uid, header) if uid else name
            cases[name] = _in_order(images)
        except UserError as error:
            problems[name] = str(error)
        except Exception as error:  # pydicom looks at values when they are asked for
            problems[name] = f"{first}: its series has a damaged header ({first_line(error)}); export it again."
    return dict(sorted(cases.items())), problems


def read_headers(files: Sequence[Path]) -> list[Any]:
    """The files of a series in order as data sets of pydicom, without their voxels, fit for objects that refer to them.

    What may be empty, and is often removed with a patient's name, is empty where it is missing.

    Raises:
        UserError: A file is damaged; the message names it.
    """
    headers = [_read(path) for path in files]
    thickness = f"{np.linalg.norm(affine_of_series(headers)[:3, 2]):.6g}"
    for header in headers:
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, "")
        header.SliceThickness = header.get("SliceThickness") or thickness
    return headers


def affine_of_series(headers: Sequence[Any]) -> np.ndarray:
    """(4, 4) matrix from (column, row, slice) to mm in the patient, of slices in order; its axes are orthogonal."""
    first, axes = headers[0], _axes(headers[0])
    origin, last = (np.array(header.ImagePositionPatient, float) for header in (first, headers[-1]))
    step = (last - origin) @ axes[:, 2] / (len(headers) - 1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes * (float(first.PixelSpacing[1]), float(first.PixelSpacing[0]), step), origin
    return affine


def _read(path: Path, tags: list[str] | None = None) -> Any:
    from pydicom import dcmread

    check_name(path)
    try:
        with quiet():
            return dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except Exception as error:  # pydicom raises anything of damaged files
        raise UserError(f"{path}: cannot be read as DICOM ({first_line(error)}); restore it.") from None


def _is_image(header: Any) -> bool:
    from pydicom.uid import UID

    kind = header.file_meta.get("MediaStorageSOPClassUID")
    return not kind or "Image Storage" in UID(str(kind)).name


def _name_of(uid: str, header: Any) -> str:
    words = f"{header.get('SeriesNumber') or ''} {header.get('SeriesDescription') or 'series'}"
    plain = re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_")[:40] or "series"
    return f"{plain}_{hashlib.sha256(uid.encode()).hexdigest()[:10]}"


def _axes(header: Any) -> np.ndarray:
    """(3, 3) orthonormal matrix: its columns point along a row, along a column, and from slice to slice."""
    row, column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    normal, row = np.cross(row, column), row / np.linalg.norm(row)
    normal /= np.linalg.norm(normal)
    return np.stack((row, np.cross(normal, row), normal), axis=1)


def _are_finite(values: Any, count: int) -> bool:
    return np.size(values) == count and bool(np.isfinite(np.array(values, float)).all())


def _are_unit_vectors(values: Any) -> bool:
    if not _are_finite(values, 6):
        return False
    vectors = np.array(values, float).reshape(2, 3)
    return np.allclose(vectors @ vectors.T, np.eye(2), rtol=0, atol=_UNIT_COSINES)


_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "NumberOfFrames": (
        lambda frames: frames in (0, 1),
        "enhanced multi-frame images are not supported; export it as single-frame images",
    ),
    "SamplesPerPixel": (lambda samples: samples == 1, "colour images are not supported; leave this series out"),
    "PhotometricInterpretation": (
        lambda kind: kind == "MONOCHROME2",
        "colour and inverted images are not supported; export it as MONOCHROME2, or leave this series out",
    ),
    "ModalityLUTSequence": (lambda table: not table, "tables of values are not supported; leave this series out"),
    "SliceThickness": (lambda length: _are_finite(length, 1) and length >= 0, "it must be a length"),
    "PixelSpacing": (lambda steps: _are_finite(steps, 2) and min(steps) > 0, "it must be two lengths above 0"),
    "ImageOrientationPatient": (_are_unit_vectors, "it must be two unit vectors at right angles"),
    "ImagePositionPatient": (lambda place: _are_finite(place, 3), "it must be three numbers"),
    "RescaleSlope": (lambda slope: _are_finite(slope, 1) and slope != 0, "it must be a number other than 0"),
    "RescaleIntercept": (lambda intercept: _are_finite(intercept, 1), "it must be a number"),
}
"""Whether the value of an attribute can be used, where it has one, and what it should be."""
_TAGS = [*_NEEDED, *_COMMON, *_CHECKS, "SeriesNumber", "SeriesDescription"]


def _check_headers(images: Sequence[tuple[Path, Any]]) -> None:
    """UserError if an image of a series cannot be used, or is of another patient or study than the first."""
    first, header = images[0]
    needed = [*_NEEDED, *(name for name in _SCALE if any(one.get(name) not in (None, "") for _, one in images))]
    instances: dict[str, Path] = {}
    for path, one in images:
        for name, (fits, problem) in _CHECKS.items():
            value = one.get(name)
            if value not in (None, "") and not fits(value):
                raise UserError(f"{path}: {name} is {one_line(str(value))[:80]}: {problem}.")
        if missing := [name for name in needed if one.get(name) in (None, "")]:
            raise UserError(
                f"{path}: its header has no {missing[0]}: damaged, a screenshot or a projection; leave it out."
            )
        for name in _COMMON:
            value, expected = (str(each.get(name) or "").strip() for each in (one, header))
            if value != expected:
                raise UserError(
                    f"{path}: {name} is {value!r}, but {expected!r} in {first.name} of the same series: images of two "
                    "patients, studies or frames of reference; separate them."
                )
        if (other := instances.setdefault(one.SOPInstanceUID, path)) != path:
            raise UserError(f"{path} and {other.name} have one SOPInstanceUID, {one.SOPInstanceUID}: copies; keep one.")


def _in_order(images: Sequence[tuple[Path, Any]]) -> tuple[Path, ...]:
    """The files of a series in the order of the slices; UserError if they are no even stack."""
    _check_headers(images)
    first, header = images[0]
    if len(images) < 2:
        raise UserError(f"{first}: the series has one image, which is no volume; add its other files, or leave it out.")
    places = np.array([one.ImagePositionPatient for _, one in images], float)
    planes = np.array([[*one.ImageOrientationPatient, *one.PixelSpacing] for _, one in images], float)
    for (path, one), plane in zip(images, planes):
        size = (one.Rows, one.Columns) != (header.Rows, header.Columns)
        if size or not np.allclose(plane, planes[0], rtol=0, atol=_SAME_COSINES):
            raise UserError(
                f"{path}: other size, orientation or pixel spacing than {first.name} of the same series: a localizer? "
                "Leave it out."
            )
    normal = _axes(header)[:, 2]
    order = np.argsort(places @ normal, kind="stable").tolist()
    places, files = places[order], tuple(images[i][0] for i in order)
    along = (places - places[0]) @ normal
    gaps, step = np.diff(along), along[-1] / (len(along) - 1)
    usual = float(np.percentile(gaps, 50, method="lower"))
    if (gaps < 0.01).any():
        i = int(gaps.argmin())
        raise UserError(
            f"{files[i]} and {files[i + 1].name} lie in the same place: copies, or several phases or echoes in one "
            "series; leave one of each."
        )
    if (np.abs(along - step * np.arange(len(along))) > _SHIFT_SLICES * step).any():
        i = int(np.abs(gaps - usual).argmax())
        what = "a slice is missing" if gaps[i] > 1.5 * usual else "the slices are not evenly spaced"
        raise UserError(
            f"{files[i]} and {files[i + 1].name}: {gaps[i]:.4g} mm apart, others of the series {usual:.4g} mm: {what}; "
            "add or resample it."
        )
    if np.abs(places - places[0] - along[:, None] * normal).max() > _SHIFT_PIXELS * planes[0, 6:].min():
        raise UserError(
            f"{first}: the slices of its series are shifted against each other (a tilted gantry), which is not "
            "supported; resample them."
        )
    return files
