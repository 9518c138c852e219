"""Finds DICOM series in a folder, checks that each is one regular stack of slices, and reads it as
an image.

SimpleITK's reader takes a series with other patients, missing slices or cut pixel data without a
word, so headers are checked before.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.errors import UserError, first_line, one_line
from nnunet_nacl.files import regular_only
from nnunet_nacl.images import check_name, quiet, read_header, verified

_PATIENT = ("PatientID", "PatientName", "PatientBirthDate")
_STUDY = ("StudyInstanceUID", "FrameOfReferenceUID")
_KIND = ("Modality", "SOPClassUID")
_PLANE = ("Rows", "Columns", "ImageOrientationPatient", "PixelSpacing")
_UIDS = ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", *_STUDY)
_NEEDED = (*_UIDS, *_PLANE, "ImagePositionPatient", "PhotometricInterpretation")
_SCALE = ("RescaleSlope", "RescaleIntercept")
_MAY_BE_EMPTY = "PatientSex ReferringPhysicianName StudyID StudyDate StudyTime AccessionNumber"
_ROUNDED = 1e-3  # headers round cosines to three digits
_SHIFT_PIXELS, _SHIFT_SLICES = 0.25, 0.2
"""How far a slice may lie from where an even stack has it: headers round to 0.1 mm, a missing slice
shifts by 1/3."""


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; those without that beginning are not looked at."""
    with contextlib.suppress(OSError), open(path, "rb", opener=regular_only) as file:
        return file.read(132)[128:] == b"DICM"
    return False


def find_series(folder: Path) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """Files of each series of images in a folder and below it, in the order of the slices, and why
    others are no scan.

    All images of a series must have one patient (ID, name, date of birth), study and frame of
    reference, since what is made of it is made for those of the first; a value may be empty or
    missing, but then in all. Reports, segmentations and the like are passed over. A case's name is
    made of the series' number, its description and a hash of its UID, so it holds nothing of the
    patient. UserError where the packages that read DICOM are missing.
    """
    files = [path for path in sorted(folder.rglob("*")) if is_dicom(path)]
    if not files:
        return {}, {}
    if not (util.find_spec("pydicom") and util.find_spec("highdicom")):
        raise UserError(
            f"{folder} holds DICOM files; to read them: pip install 'nnunet_nacl[dicom]'."
        )
    from pydicom.uid import UID

    groups, cases, problems = defaultdict(list), {}, dict[str, str]()
    tags = [*_NEEDED, *_PATIENT, *_KIND, *_ONE_OF, *_NUMBERS, "SeriesNumber", "SeriesDescription"]
    for path in files:
        try:
            header = _read(path, tags)
        except UserError as error:
            problems[one_line(str(path.relative_to(folder)))] = str(error)
            continue
        kind = header.file_meta.get("MediaStorageSOPClassUID")
        if not kind or "Image Storage" in UID(str(kind)).name:
            groups[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    for uid, images in groups.items():
        first, header = images[0]
        name = one_line(str(first.relative_to(folder)))
        try:
            if uid:
                words = (
                    f"{header.get('SeriesNumber') or ''}"
                    f" {header.get('SeriesDescription') or 'series'}"
                )
                plain = re.sub(r"[^A-Za-z0-9]+", "_", words).strip("_")[:40] or "series"
                name = f"{plain}_{hashlib.sha256(uid.encode()).hexdigest()[:10]}"
            _check_headers(images)
            cases[name] = _in_order(images)
        except UserError as error:
            problems[name] = str(error)
        except Exception as error:  # pydicom looks at values when they are asked for
            problems[name] = (
                f"{first}: its series has a damaged header ({first_line(error)}); export it again."
            )
    return dict(sorted(cases.items())), problems


def read_headers(files: Sequence[Path]) -> list[Any]:
    """The files of a series as data sets of pydicom, without voxels, so that objects can be made of
    them.

    What may be empty is empty where it is missing, or where it is no date, time or sex. All slices
    have the plane of the first: their own may differ by the rounding of their headers, which is
    refused in objects.
    """
    headers = [_read(path) for path in files]
    first = headers[0]
    thickness = f"{np.linalg.norm(affine_of_series(headers)[:3, 2]):.6g}"
    for header in headers:
        for name in (*_PATIENT, *_MAY_BE_EMPTY.split()):
            if name not in header or not _is_valid(name, header[name].value):
                setattr(header, name, "")
        for name in _PLANE:
            setattr(header, name, first[name].value)
        header.SliceThickness = header.get("SliceThickness") or thickness
    return headers


def _is_valid(name: str, value: Any) -> bool:
    """Whether the value of an attribute can be written into another object."""
    from pydicom.valuerep import DA, TM

    kinds: dict[str, Any] = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
    if name == "PatientSex":
        return value in ("", None, "M", "F", "O")
    if name not in kinds or value in ("", None):
        return True
    try:
        kinds[name](value)
    except (TypeError, ValueError):
        return False
    return True


def affine_of_series(headers: Sequence[Any]) -> np.ndarray:
    """(4, 4) matrix from (column, row, slice) to mm in the patient, of slices in order; its axes
    are orthogonal."""
    first, axes = headers[0], _axes(headers[0])
    origin, last = (np.array(header.ImagePositionPatient, float) for header in (first, headers[-1]))
    step = (last - origin) @ axes[:, 2] / (len(headers) - 1)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = (
        axes * (float(first.PixelSpacing[1]), float(first.PixelSpacing[0]), step),
        origin,
    )
    return affine


def orientation_of(images: Iterable[Path]) -> str:
    """Where the axes (x, y, z) of most of some volumes point, such as ``LPS``; empty where none can
    be read."""
    import SimpleITK as sitk

    found = list[str]()
    for path in images:
        with contextlib.suppress(RuntimeError):
            reader = read_header(path)
            if reader.GetDimension() == 3:
                found += [
                    sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(
                        reader.GetDirection()
                    )
                ]
    return max(found, key=found.count, default="")


@contextlib.contextmanager
def image_of_series(files: Sequence[Path], orientation: str) -> Iterator[Path]:
    """A temporary NIfTI file of a series, which each of nnU-Net's readers of volumes takes; gone
    after the block.

    Its axes (x, y, z) point as ``orientation`` says: a network knows scans by the order of their
    voxels, which is another in DICOM files than in NIfTI files that were converted from them.
    UserError names a file that cannot be read or has other pixel data than its header says.
    """
    import SimpleITK as sitk

    affine = affine_of_series(read_headers(files))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.stack([_read_plane(path) for path in files]))
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
            raise UserError(
                f"{folder}: no room for the image of {files[0].parent} ({error}); free space."
            ) from None
        del image
        yield path


def _read_plane(path: Path) -> np.ndarray:
    """(rows, columns) float32 values of a slice; UserError if its pixel data are not as many as its
    header says.

    SimpleITK's reader fails where a JPEG stream ends early, but fills what else is missing with
    whatever was in memory.
    """
    import SimpleITK as sitk
    from pydicom import dcmread, uid
    from pydicom.pixels import pixel_array

    try:
        with quiet():
            image = dcmread(path)
            shape, syntax = (image.Rows, image.Columns), image.file_meta.TransferSyntaxUID
            if image.get("HighBit", 0) >= image.BitsStored:  # which that reader does not shift
                raise ValueError(f"HighBit {image.HighBit}, BitsStored {image.BitsStored}")
            if syntax in (*uid.UncompressedTransferSyntaxes, *uid.RLETransferSyntaxes):
                pixel_array(image)  # raises if there are fewer
                expected = image.Rows * image.Columns * image.BitsAllocated // 8
                if not syntax.is_encapsulated and any(image.PixelData[expected:]):  # zeros pad it
                    raise ValueError(f"{len(image.PixelData)} bytes of pixel data, not {expected}")
            plane = sitk.GetArrayFromImage(sitk.ReadImage(str(path), sitk.sitkFloat32))[0]
            if plane.shape != shape:  # a JPEG stream has a size of its own
                raise ValueError(f"{plane.shape} voxels, not {shape}")
            return plane
    except Exception as error:  # both libraries raise anything of damaged files
        again = "restore it, or export the series again without compression"
        raise UserError(
            f"{path}: its voxels cannot be read ({first_line(error)}); {again}."
        ) from None


def _read(path: Path, tags: list[str] | None = None) -> Any:
    from pydicom import dcmread

    check_name(path)
    try:
        with quiet():
            return dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except Exception as error:  # pydicom raises anything of damaged files
        raise UserError(
            f"{path}: cannot be read as DICOM ({first_line(error)}); restore it."
        ) from None


def _axes(header: Any) -> np.ndarray:
    """(3, 3) orthonormal matrix: its columns point along a row, along a column, and from slice to
    slice."""
    row, column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    normal, row = np.cross(row, column), row / np.linalg.norm(row)
    normal /= np.linalg.norm(normal)
    return np.stack((row, np.cross(normal, row), normal), axis=1)


_ONE_OF = {
    "NumberOfFrames": ("0", "1"),
    "SamplesPerPixel": ("1",),
    "PhotometricInterpretation": ("MONOCHROME2",),
    "ModalityLUTSequence": (),
}
"""Values that an attribute may have beside none."""
_NUMBERS = {
    "SliceThickness": 1,
    "PixelSpacing": 2,
    "ImageOrientationPatient": 6,
    "ImagePositionPatient": 3,
}
_NUMBERS |= dict.fromkeys(_SCALE, 1)
"""How many finite numbers an attribute must have where it has a value."""


def _value(header: Any, name: str) -> str:
    value = header.get(name)
    return one_line(str(value).strip()) if value or value == 0 else ""


_FIXES = {
    **dict.fromkeys(_PLANE, "a localizer? Leave it out"),
    **dict.fromkeys(_KIND, "images of two kinds? Separate them"),
    **dict.fromkeys((*_PATIENT, *_STUDY), "two patients or studies? Separate them"),
}
"""What must be the same in all images of a series, and what to do where it is not."""


def _check_headers(images: Sequence[tuple[Path, Any]]) -> None:
    """UserError if an image of a series cannot be used, or is not of the patient, study and planes
    of the first."""
    needed = list(_NEEDED)
    for name in _SCALE:
        if any(_value(header, name) for _, header in images):
            needed.append(name)
    for path, header in images:
        _check_values(path, header)
        for name in needed:
            if not _value(header, name):
                why = "damaged, a screenshot or a projection; leave it out"
                raise UserError(f"{path}: its header has no {name}: {why}.")
        _check_same(path, header, *images[0])
    _check_instances(images)
    if len(images) < 2:
        path = images[0][0]
        raise UserError(
            f"{path}: the series has one image, which is no volume; add its other files, or leave"
            " it out."
        )


def _check_same(path: Path, header: Any, first: Path, of_first: Any) -> None:
    """UserError if an image is not of the kind, patient, study and plane of the first of its
    series."""
    for name, fix in _FIXES.items():
        value, value_of_first = _value(header, name), _value(of_first, name)
        if value == value_of_first:
            continue
        if name in _PLANE and np.allclose(
            header.get(name), of_first.get(name), rtol=0, atol=_ROUNDED
        ):
            continue
        there = f"{value_of_first!r} in {first.name} of the same series"
        raise UserError(f"{path}: {name} is {value!r}, but {there}: {fix}.")


def _check_instances(images: Sequence[tuple[Path, Any]]) -> None:
    """UserError if two images of a series have one identifier: objects that quote it would mean
    either."""
    path_of: dict[str, Path] = {}
    for path, header in images:
        uid = _value(header, "SOPInstanceUID")
        if uid in path_of:
            raise UserError(
                f"{path}: it has the SOPInstanceUID of {path_of[uid].name}: a copy? Leave one of"
                " them out."
            )
        path_of[uid] = path


def _check_values(path: Path, header: Any) -> None:
    """UserError for an image with a value that an attribute must not have."""
    for name, allowed in _ONE_OF.items():
        text = _value(header, name)
        if text not in ("", *allowed):
            fix = "export it as single-frame MONOCHROME2 images, or leave it out"
            raise UserError(f"{path}: {name} is {text[:80]}, which is not supported; {fix}.")
    for name in _NUMBERS:
        text = _value(header, name)
        problem = _problem_of_numbers(name, np.array(header.get(name), float)) if text else ""
        if problem:
            raise UserError(f"{path}: {name} is {text[:80]}: {problem}.")


def _problem_of_numbers(name: str, values: np.ndarray) -> str:
    """What is wrong with the numbers of an attribute; empty where nothing is."""
    count = _NUMBERS[name]
    if values.size != count or not np.isfinite(values).all():
        return f"it must be {count} finite number{'s' if count > 1 else ''}"
    if name == "PixelSpacing" and values.min() <= 0:
        return "it must be above 0"
    if name == "RescaleSlope" and not values.all():
        return "it must not be 0"
    if name == "ImageOrientationPatient":
        axes = values.reshape(2, 3)
        if np.abs(axes @ axes.T - np.eye(2)).max() > 1e-2:
            return "it must be two unit vectors at right angles"
    return ""


def _in_order(images: Sequence[tuple[Path, Any]]) -> tuple[Path, ...]:
    """The files of a series in the order of the slices; UserError if they are no even stack."""
    normal = _axes(images[0][1])[:, 2]
    places = np.array([header.ImagePositionPatient for _, header in images], float)
    order = np.argsort(places @ normal, kind="stable").tolist()
    places, files = places[order] - places[order[0]], [images[i][0] for i in order]
    along = places @ normal
    gaps, step = np.diff(along), along[-1] / (len(along) - 1)
    usual, aside = (
        float(np.percentile(gaps, 50, method="lower")),
        np.abs(places - along[:, None] * normal).max(),
    )
    i, problem = int(np.abs(gaps - usual).argmax()), ""
    if gaps.min() < 0.01:
        i, problem = (
            int(gaps.argmin()),
            "copies, or several phases or echoes in one series; leave one of each",
        )
    elif np.abs(along - step * np.arange(len(along))).max() > _SHIFT_SLICES * step:
        missing = gaps[i] > 1.5 * usual
        problem = (
            "a slice is missing; add it"
            if missing
            else "the slices are not evenly spaced; resample them"
        )
    elif aside > _SHIFT_PIXELS * min(images[0][1].PixelSpacing):
        problem = (
            f"the slices are shifted by {aside:.4g} mm in all, as by a tilted gantry; resample them"
        )
    if problem:
        apart = f"{gaps[i]:.4g} mm apart, others of the series {usual:.4g} mm"
        raise UserError(f"{files[i]} and {files[i + 1].name}: {apart}: {problem}.")
    return tuple(files)
