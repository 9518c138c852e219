"""Finds DICOM series, checks that each is a regular stack of slices, and reads it as an image.

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
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nnunet_nacl.utilities.errors import UserError, first_line, one_line
from nnunet_nacl.utilities.files import regular_only
from nnunet_nacl.utilities.images import check_name, quiet, read_header, verified

if TYPE_CHECKING:
    from pydicom import Dataset

# Names of attributes. Those of the first four tuples must be the same in all images of a series.
_PATIENT = ("PatientID", "PatientName", "PatientBirthDate")
_STUDY = ("StudyInstanceUID", "FrameOfReferenceUID")
_KIND = ("Modality", "SOPClassUID")
_PLANE = ("Rows", "Columns", "ImageOrientationPatient", "PixelSpacing")
_UIDS = ("SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", *_STUDY)
# what each image must have
_NEEDED = (*_UIDS, *_PLANE, "ImagePositionPatient", "PhotometricInterpretation")
# what all images of a series must have, or none
_SCALE = ("RescaleSlope", "RescaleIntercept")
# what an object made of a series must have, but may have without a value
_MAY_BE_EMPTY = (
    "PatientSex",
    "ReferringPhysicianName",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
)
_ONE_OF = {
    "NumberOfFrames": ("0", "1"),
    "SamplesPerPixel": ("1",),
    "PhotometricInterpretation": ("MONOCHROME2",),
    "ModalityLUTSequence": (),
}
"""The values that are supported of an attribute; it may also be empty or missing."""
_NUMBERS = {
    "SliceThickness": 1,
    "PixelSpacing": 2,
    "ImageOrientationPatient": 6,
    "ImagePositionPatient": 3,
    **dict.fromkeys(_SCALE, 1),
}
"""How many finite numbers an attribute must have where it has a value."""
_FIXES = {
    **dict.fromkeys(_PLANE, "a localizer? Leave it out"),
    **dict.fromkeys(_KIND, "images of two kinds? Separate them"),
    **dict.fromkeys((*_PATIENT, *_STUDY), "two patients or studies? Separate them"),
}
"""What must be the same in all images of a series, and what to do where it is not."""
_TAGS = (
    *_NEEDED,
    *_PATIENT,
    *_KIND,
    *_ONE_OF,
    *_NUMBERS,
    "SeriesNumber",
    "SeriesDescription",
)
"""What is read of a header to find series."""
_ROUNDED = 1e-3  # difference within a series: headers round cosines to three digits
_SHIFT_PIXELS = 0.25
_SHIFT_SLICES = 0.2
"""How far a slice may lie from where an even stack has it, within its plane and across.

Headers round to 0.1 mm, a missing slice shifts by 1/3."""


class SeriesImage(NamedTuple):
    """One image of a series.

    Attributes:
        path: Its file.
        header: A data set of pydicom.
    """

    path: Path
    header: Dataset


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; those without that beginning are not looked at."""
    with contextlib.suppress(OSError), open(path, "rb", opener=regular_only) as file:
        return file.read(132)[128:] == b"DICM"
    return False


def find_series(folder: Path) -> tuple[dict[str, tuple[Path, ...]], dict[str, str]]:
    """The series of images in a folder and below it.

    All images of a series must have one patient (ID, name, date of birth), study and frame of
    reference, since what is made of it is made for those of the first; a value may be empty or
    missing, but then in all. Reports, segmentations and the like are passed over.

    Returns:
        By case the files of each series, in the order of the slices; and why others are no scan. A
        case's name is made of the series' number, its description and a hash of its UID, so it
        holds nothing of the patient.

    Raises:
        UserError: The packages that read DICOM are missing.
    """
    files = [path for path in sorted(folder.rglob("*")) if is_dicom(path)]
    if not files:
        return {}, {}
    if not (util.find_spec("pydicom") and util.find_spec("highdicom")):
        raise UserError(
            f"{folder} holds DICOM files; to read them: pip install 'nnunet_nacl[dicom]'."
        )
    images_of_series = defaultdict[str, list[SeriesImage]](list)
    problems: dict[str, str] = {}
    for path in files:
        try:
            header = _read(path, list(_TAGS))
        except UserError as error:
            problems[one_line(str(path.relative_to(folder)))] = error.message
            continue
        if _is_image(header):
            uid = str(header.get("SeriesInstanceUID", ""))
            images_of_series[uid].append(SeriesImage(path, header))
    cases: dict[str, tuple[Path, ...]] = {}
    for uid, images in images_of_series.items():
        first = images[0]
        name = one_line(str(first.path.relative_to(folder)))
        try:
            if uid:
                name = _name_series(first.header, uid)
            _check_headers(images)
            cases[name] = _in_order(images)
        except UserError as error:
            problems[name] = error.message
        except Exception as error:  # pydicom looks at values when they are asked for
            problems[name] = (
                f"{first.path}: its series has a damaged header ({first_line(error)}); export it"
                " again."
            )
    return dict(sorted(cases.items())), problems


def _is_image(header: Dataset) -> bool:
    """Whether a file is an image, or does not say what it is."""
    from pydicom.uid import UID

    kind = header.file_meta.get("MediaStorageSOPClassUID")
    return not kind or "Image Storage" in UID(str(kind)).name


def _name_series(header: Dataset, uid: str) -> str:
    """The name of a case, without anything of the patient."""
    number = header.get("SeriesNumber") or ""
    description = header.get("SeriesDescription") or "series"
    plain = re.sub(r"[^A-Za-z0-9]+", "_", f"{number} {description}").strip("_")[:40]
    return f"{plain or 'series'}_{hashlib.sha256(uid.encode()).hexdigest()[:10]}"


def read_headers(files: Sequence[Path]) -> list[Dataset]:
    """The files of a series as data sets of pydicom, without voxels, of which objects can be made.

    What may be empty is empty where it is missing, or where it is no date, time or sex. All slices
    have the plane of the first: their own may differ by the rounding of their headers, which is
    refused in objects.
    """
    headers = [_read(path) for path in files]
    first = headers[0]
    thickness = f"{np.linalg.norm(affine_of_series(headers)[:3, 2]):.6g}"
    for header in headers:
        for name in (*_PATIENT, *_MAY_BE_EMPTY):
            if name not in header or not _is_valid(name, header[name].value):
                setattr(header, name, "")
        for name in _PLANE:
            setattr(header, name, first[name].value)
        header.SliceThickness = header.get("SliceThickness") or thickness
    return headers


def _is_valid(name: str, value: object) -> bool:
    """Whether the value of an attribute can be written into another object."""
    from pydicom.valuerep import DA, TM

    kinds: dict[str, type] = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
    if name == "PatientSex":
        return value in ("", None, "M", "F", "O")
    if name not in kinds or value in ("", None):
        return True
    try:
        kinds[name](value)
    except (TypeError, ValueError):
        return False
    return True


def affine_of_series(headers: Sequence[Dataset]) -> np.ndarray:
    """(4, 4) matrix from (column, row, slice) to mm in the patient, of slices in order.

    Its axes are orthogonal.
    """
    first = headers[0]
    axes = _axes(first)
    origin = np.array(first.ImagePositionPatient, float)
    last_origin = np.array(headers[-1].ImagePositionPatient, float)
    slice_spacing = (last_origin - origin) @ axes[:, 2] / (len(headers) - 1)
    # between rows, so along a column, then between columns
    row_spacing, column_spacing = map(float, first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, :3] = axes * (column_spacing, row_spacing, slice_spacing)
    affine[:3, 3] = origin
    return affine


def most_common_orientation(images: Iterable[Path]) -> str:
    """Where the axes (x, y, z) of most of some volumes point, such as ``LPS``.

    Empty where none can be read.
    """
    import SimpleITK as sitk

    name_axes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines
    orientations: list[str] = []
    for path in images:
        with contextlib.suppress(RuntimeError):  # it cannot be read: others may
            header = read_header(path)
            if header.GetDimension() == 3:
                orientations.append(name_axes(header.GetDirection()))
    return max(orientations, key=orientations.count, default="")


@contextlib.contextmanager
def image_of_series(files: Sequence[Path], orientation: str) -> Iterator[Path]:
    """A temporary NIfTI file of a series, which each of nnU-Net's readers of volumes takes.

    Args:
        files: Of the series, in the order of the slices.
        orientation: Where its axes (x, y, z) shall point: a network knows scans by the order of
            their voxels, which is another in DICOM files than in NIfTI files that were converted
            from them.

    Yields:
        Its path; it is gone after the block.

    Raises:
        UserError: A file cannot be read, or has other pixel data than its header says.
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
    """(rows, columns) float32 values of a slice.

    SimpleITK's reader fails where a JPEG stream ends early, but fills what else is missing with
    whatever was in memory.

    Raises:
        UserError: Its pixel data cannot be read, or are not as many as its header says.
    """
    import SimpleITK as sitk
    from pydicom import dcmread

    try:
        with quiet():
            image = dcmread(path)
            _check_pixel_data(image)
            (plane,) = sitk.GetArrayFromImage(sitk.ReadImage(str(path), sitk.sitkFloat32))
            shape = (image.Rows, image.Columns)
            if plane.shape != shape:  # a JPEG stream has a size of its own
                raise ValueError(f"{plane.shape} voxels, not {shape}")
            return plane
    except Exception as error:  # both libraries raise anything of damaged files
        raise UserError(
            f"{path}: its voxels cannot be read ({first_line(error)}); restore it, or export the"
            " series again without compression."
        ) from None


def _check_pixel_data(image: Dataset) -> None:
    """ValueError where SimpleITK would read pixel data wrong without a word."""
    from pydicom import uid
    from pydicom.pixels import pixel_array

    if image.get("HighBit", 0) >= image.BitsStored:  # which SimpleITK does not shift
        raise ValueError(f"HighBit {image.HighBit}, BitsStored {image.BitsStored}")
    syntax = image.file_meta.TransferSyntaxUID
    if syntax not in (*uid.UncompressedTransferSyntaxes, *uid.RLETransferSyntaxes):
        return
    pixel_array(image)  # raises if there are fewer
    expected = image.Rows * image.Columns * image.BitsAllocated // 8
    if not syntax.is_encapsulated and any(image.PixelData[expected:]):  # zeros pad it
        raise ValueError(f"{len(image.PixelData)} bytes of pixel data, not {expected}")


def _read(path: Path, tags: list[str] | None = None) -> Dataset:
    """The header of a file, or these tags of it, as a data set of pydicom; UserError."""
    from pydicom import dcmread

    check_name(path)
    try:
        with quiet():
            return dcmread(path, stop_before_pixels=True, specific_tags=tags)
    except Exception as error:  # pydicom raises anything of damaged files
        raise UserError(
            f"{path}: cannot be read as DICOM ({first_line(error)}); restore it."
        ) from None


def _axes(header: Dataset) -> np.ndarray:
    """(3, 3) orthonormal matrix whose columns are directions in the patient.

    The first points along a row of the image, the second along a column, the third from slice to
    slice.
    """
    row, column = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    row = row / np.linalg.norm(row)
    return np.stack((row, np.cross(normal, row), normal), axis=1)


def _value(header: Dataset, name: str) -> str:
    """An attribute as text; empty where it is missing or empty."""
    value = header.get(name)
    if not value and value != 0:
        return ""
    return one_line(str(value).strip())


def _check_headers(images: Sequence[SeriesImage]) -> None:
    """UserError if images of a series cannot be used, or differ in patient, study or plane."""
    needed = list(_NEEDED)
    for name in _SCALE:
        if any(_value(image.header, name) for image in images):
            needed.append(name)
    for image in images:
        _check_values(image)
        for name in needed:
            if not _value(image.header, name):
                raise UserError(
                    f"{image.path}: its header has no {name}: damaged, a screenshot or a"
                    " projection; leave it out."
                )
        _check_same(image, images[0])
    _check_instances(images)
    if len(images) < 2:
        raise UserError(
            f"{images[0].path}: the series has one image, which is no volume; add its other files,"
            " or leave it out."
        )


def _check_same(image: SeriesImage, first: SeriesImage) -> None:
    """UserError if an image is not of the kind, patient, study and plane of the first."""
    for name, fix in _FIXES.items():
        value = _value(image.header, name)
        value_of_first = _value(first.header, name)
        if value == value_of_first:
            continue
        if name in _PLANE and np.allclose(
            image.header.get(name), first.header.get(name), rtol=0, atol=_ROUNDED
        ):
            continue
        raise UserError(
            f"{image.path}: {name} is {value!r}, but {value_of_first!r} in {first.path.name} of the"
            f" same series: {fix}."
        )


def _check_instances(images: Sequence[SeriesImage]) -> None:
    """UserError if two images of a series have one identifier: what quotes it would mean either."""
    path_by_uid: dict[str, Path] = {}
    for path, header in images:
        uid = _value(header, "SOPInstanceUID")
        if uid in path_by_uid:
            raise UserError(
                f"{path}: it has the SOPInstanceUID of {path_by_uid[uid].name}: a copy? Leave one"
                " of them out."
            )
        path_by_uid[uid] = path


def _check_values(image: SeriesImage) -> None:
    """UserError for an image with a value that an attribute must not have."""
    for name, allowed in _ONE_OF.items():
        text = _value(image.header, name)
        if text not in ("", *allowed):
            raise UserError(
                f"{image.path}: {name} is {text[:80]}, which is not supported; export it as"
                " single-frame MONOCHROME2 images, or leave it out."
            )
    for name in _NUMBERS:
        text = _value(image.header, name)
        if not text:
            continue
        problem = _problem_of_numbers(name, np.array(image.header.get(name), float))
        if problem:
            raise UserError(f"{image.path}: {name} is {text[:80]}: {problem}.")


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


def _in_order(images: Sequence[SeriesImage]) -> tuple[Path, ...]:
    """The files of a series in the order of the slices; UserError if they are no even stack."""
    normal = _axes(images[0].header)[:, 2]
    positions_mm = np.array([image.header.ImagePositionPatient for image in images], float)
    order = np.argsort(positions_mm @ normal, kind="stable").tolist()
    files = tuple(images[number].path for number in order)
    from_first_mm = positions_mm[order] - positions_mm[order[0]]
    along_normal_mm = from_first_mm @ normal
    gaps_mm = np.diff(along_normal_mm)
    step_mm = along_normal_mm[-1] / (len(files) - 1)
    # the median, of two middle gaps the lower: a gap that there is
    usual_gap_mm = float(np.percentile(gaps_mm, 50, method="lower"))
    from_even_mm = np.abs(along_normal_mm - step_mm * np.arange(len(files))).max()
    aside_mm = np.abs(from_first_mm - along_normal_mm[:, None] * normal).max()
    odd_gap = int(np.abs(gaps_mm - usual_gap_mm).argmax())
    if gaps_mm.min() < 0.01:
        odd_gap = int(gaps_mm.argmin())
        problem = "copies, or several phases or echoes in one series; leave one of each"
    elif from_even_mm > _SHIFT_SLICES * step_mm:
        is_missing = gaps_mm[odd_gap] > 1.5 * usual_gap_mm
        not_even = "the slices are not evenly spaced; resample them"
        problem = "a slice is missing; add it" if is_missing else not_even
    elif aside_mm > _SHIFT_PIXELS * min(images[0].header.PixelSpacing):
        problem = (
            f"the slices are shifted by {aside_mm:.4g} mm in all, as by a tilted gantry; resample"
            " them"
        )
    else:
        return files
    raise UserError(
        f"{files[odd_gap]} and {files[odd_gap + 1].name}: {gaps_mm[odd_gap]:.4g} mm apart, others"
        f" of the series {usual_gap_mm:.4g} mm: {problem}."
    )
