"""DICOM series as scans: their slices in order, where they lie, and what is no scan."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest
import SimpleITK as sitk

pydicom = pytest.importorskip("pydicom", reason="needs pydicom: pip install 'nnunet_nacl[dicom]'")

from nnunet_nacl.dicom import series  # noqa: E402
from nnunet_nacl.dicom.series import (  # noqa: E402
    affine_of_series,
    find_series,
    image_of_series,
    most_common_orientation,
)
from nnunet_nacl.utilities.errors import UserError  # noqa: E402
from tests.dicom.dicom_files import (  # noqa: E402
    ORIGIN_MM,
    SHAPE,
    SPACING_MM,
    as_decimals,
    oblique,
    scan,
    write_series,
)
from tests.processes import run_warm  # noqa: E402


def only(folder):
    """The one problem of a folder that holds no scan."""
    found, problems = find_series(folder)
    assert not found
    (problem,) = problems.values()
    assert "\n" not in problem
    return problem


def volume(folder, orientation="LPS") -> sitk.Image:
    """The image of a folder's one series."""
    (files,) = find_series(folder)[0].values()
    with image_of_series(files, orientation) as path:
        image = sitk.ReadImage(str(path))
        assert most_common_orientation([path, path.with_name("absent"), path]) == orientation
    assert not path.exists()
    return image


def refused(folder, path) -> None:
    with pytest.raises(UserError, match=f"{path}: its voxels cannot be read"):
        volume(folder)


def test_slices_are_in_the_order_of_their_places_and_what_is_no_image_is_passed_over(tmp_path):
    order = np.random.default_rng(1).permutation(len(scan()))
    paths = write_series(tmp_path / "a" / "b", scan(), order=order)
    os.mkfifo(tmp_path / "pipe")
    looked = run_warm(series.is_dicom, tmp_path / "pipe", folder=tmp_path, timeout_s=60)
    assert looked.returncode == 0
    report = pydicom.dcmread(paths[0])
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = pydicom.uid.BasicTextSRStorage
    report.save_as(tmp_path / "report")
    (tmp_path / "notes.txt").write_text("nothing")
    found, problems = find_series(tmp_path)
    ((name, files),) = found.items()
    assert not problems
    assert files == tuple(paths)
    assert files != tuple(sorted(paths))
    assert name.startswith("3_Head_thin_soft_")
    assert "Doe" not in name and "patient" not in name


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAR"])
def test_the_image_lies_where_the_headers_say(tmp_path, orientation):
    values = scan()
    slopes = {i: 1 + i / 8 for i in range(len(values))}  # each slice has its own
    files = write_series(
        tmp_path, values, order=list(range(len(values)))[::-1], RescaleSlope=slopes
    )
    image = volume(tmp_path, orientation)
    is_turned = sitk.GetArrayFromImage(image).shape != values.shape
    assert is_turned == (orientation == "SAR")
    turn = oblique()
    affine = affine_of_series(series.read_headers(files))
    for k, j, i in ((0, 0, 0), (8, 16, 13), (4, 0, 13)):
        place_mm = np.array(ORIGIN_MM) + turn @ (np.array((i, j, k)) * SPACING_MM[::-1])
        index = image.TransformPhysicalPointToIndex(place_mm.tolist())
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), place_mm, atol=1e-4)
        np.testing.assert_allclose((affine @ (i, j, k, 1))[:3], place_mm, atol=1e-6)
        assert image[index] == pytest.approx((values[k, j, i] + 10) * slopes[k] - 10)


def test_no_images_have_no_orientation():
    assert most_common_orientation([]) == ""


ROW, COLUMN, NORMAL = oblique().T
STEP_MM = np.array(SPACING_MM[::-1])
PLACES = [np.array(ORIGIN_MM) + NORMAL * SPACING_MM[0] * i for i in range(SHAPE[0])]


NO_NAME = {i: "" if i == 2 else None for i in range(SHAPE[0])}


@pytest.mark.parametrize(
    "changes",
    [
        {"ImageOrientationPatient": as_decimals([*ROW, *(COLUMN + 0.005 * ROW)])},
        {"ImagePositionPatient": {8: as_decimals(PLACES[8] + 0.15 * ROW)}},
        {"ImagePositionPatient": {i: as_decimals(place, 1) for i, place in enumerate(PLACES)}},
        {
            "PatientID": {2: "patient-7 "},
            "PatientName": NO_NAME,
            "RescaleSlope": None,
            "RescaleIntercept": None,
        },
    ],
    ids=[
        "axes not quite orthogonal",
        "a slice not quite in its row",
        "rounded places",
        "spaces and gaps",
    ],
)
def test_image_and_headers_agree_where_headers_are_not_exact(tmp_path, changes):
    affine = affine_of_series(series.read_headers(write_series(tmp_path, scan(), **changes)))
    image = volume(tmp_path)
    for corner in ((0, 0, 0), (13, 0, 0), (0, 16, 0), (13, 16, 8)):
        by_headers = (affine @ (*corner, 1))[:3]
        by_image = image.TransformIndexToPhysicalPoint(corner)
        without_errors = PLACES[0] + oblique() @ (corner * STEP_MM)
        np.testing.assert_allclose(by_image, by_headers, atol=1e-4)
        np.testing.assert_allclose(by_headers, without_errors, atol=0.2)


BAD_HEADERS = {
    "NumberOfFrames is 5, which is not supported": {"NumberOfFrames": 5},
    "SamplesPerPixel is 3, which": {"SamplesPerPixel": {4: 3}},
    "PhotometricInterpretation is MONOCHROME1": {"PhotometricInterpretation": "MONOCHROME1"},
    "which is not supported; export it as single-frame": {
        "ModalityLUTSequence": [pydicom.Dataset()]
    },
    "no ImagePositionPatient": {"ImagePositionPatient": {2: None}},
    "PatientID is 'patient-8', but 'patient-7' in IM0000": {
        "PatientID": {3: "patient-8", 4: "patient-8"}
    },
    "PixelSpacing is [0.7, 0]: it must be above 0": {"PixelSpacing": ["0.7", "0"]},
    "[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]: it must be two unit vectors": {
        "ImageOrientationPatient": [1, 0, 0, 0, 0, 0]
    },
    "ImagePositionPatient is [inf, 1.0, 2.0]: it must be 3 finite numbers": {
        "ImagePositionPatient": {2: ["inf", 1, 2]}
    },
    "RescaleSlope is 0": {"RescaleSlope": 0},
    "in IM0000 of the same series: a localizer? Leave it out": {
        "ImageOrientationPatient": {8: [1, 0, 0, 0, 1, 0]}
    },
    "IM0003 and IM0004: 0 mm apart, others of the series 2.5 mm: copies": {
        "ImagePositionPatient": {3: as_decimals(PLACES[4])}
    },
    "not evenly spaced": {
        "ImagePositionPatient": {
            i: as_decimals(place + NORMAL * 0.05 * i**2) for i, place in enumerate(PLACES)
        }
    },
    "Modality is 'MR', but 'CT' in IM0000 of the same series: images of two kinds? Separate": {
        "Modality": {4: "MR"}
    },
    "SOPClassUID is '1.2.840.10008.5.1.4.1.1.4', but": {
        "SOPClassUID": {4: pydicom.uid.MRImageStorage}
    },
    "IM0004: it has the SOPInstanceUID of IM0002: a copy?": {
        "SOPInstanceUID": {2: "1.2.3", 4: "1.2.3"}
    },
    "tilted gantry": {
        "ImagePositionPatient": {i: as_decimals(p + (0, 0.1 * i, 0)) for i, p in enumerate(PLACES)}
    },
}


@pytest.mark.parametrize("message", BAD_HEADERS)
def test_series_that_are_no_even_stack_of_one_patient_are_refused_in_one_line(tmp_path, message):
    with pydicom.config.disable_value_validation():
        write_series(tmp_path, scan(), **BAD_HEADERS[message])
    assert message in only(tmp_path)


@pytest.mark.parametrize("count, missing", [(9, 7), (4, 2), (40, 38)])
def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, count, missing):
    paths = write_series(tmp_path, scan(shape=(count, 8, 8)))
    paths[missing].unlink()
    neighbours = f"{paths[missing - 1]} and {paths[missing + 1].name}"
    expected = f"{neighbours}: 5 mm apart, others of the series 2.5 mm: a slice is missing"
    assert expected in only(tmp_path)


def test_a_single_image_is_no_volume(tmp_path):
    write_series(tmp_path, scan(shape=(1, 8, 8)))
    assert "one image, which is no volume" in only(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    paths = write_series(tmp_path, scan())
    whole = paths[4].read_bytes()
    paths[4].write_bytes(whole[:-100])
    refused(tmp_path, paths[4])
    paths[4].write_bytes(whole.replace(b"2.5 ", b"2,5 "))  # the thickness
    assert "a damaged header (could not convert string to float: '2,5')" in only(tmp_path)
    paths[4].write_bytes(whole[:500])  # in the middle of the header
    _, problems = find_series(tmp_path)
    assert f"{paths[4]}: its header has no SeriesInstanceUID" in " ".join(problems.values())
    paths[4].write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    _, problems = find_series(tmp_path)
    assert str(paths[4]) in problems[paths[4].name]
    assert "a slice is missing" in " ".join(problems.values())


STORED = {i: (plane + 10).astype("<i2").tobytes() for i, plane in enumerate(scan())}
BAD_PIXELS = {
    "most are missing": {"PixelData": {4: STORED[4][:20]}},
    "one too many": {"PixelData": {4: STORED[4] + b"\1\1"}},
    "fewer rows than there are": {"Rows": SHAPE[1] - 1},
    "other bits than there are": {"BitsAllocated": {4: 8}, "BitsStored": {4: 8}, "HighBit": {4: 7}},
    "no such sign": {"PixelRepresentation": {4: 2}},
    "values that are shifted": {"BitsStored": {4: 12}, "PixelRepresentation": 0},
}


@pytest.mark.parametrize("fault", BAD_PIXELS)
def test_other_pixel_data_than_the_header_says_are_not_read(tmp_path, fault):
    paths = write_series(tmp_path, scan(), **BAD_PIXELS[fault])
    refused(tmp_path, paths[0 if "rows" in fault else 4])


def test_a_compressed_slice_that_ends_early_is_not_read(tmp_path):
    path = write_series(tmp_path, scan(), syntax="RLELossless")[4]
    image = pydicom.dcmread(path)
    (frame,) = pydicom.encaps.generate_frames(image.PixelData, number_of_frames=1)
    image.PixelData = pydicom.encaps.encapsulate([frame[:-4]])
    image.save_as(path)
    refused(tmp_path, path)


def test_jpeg_images_of_another_size_than_the_header_says_are_not_read(tmp_path):
    from PIL import Image

    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    for path, plane in zip(write_series(tmp_path, scan(), **bits), scan()):
        stream = io.BytesIO()
        Image.fromarray(plane.astype(np.uint8)).save(stream, "JPEG")
        image = pydicom.dcmread(path)
        image.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        image.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
        image.Rows = SHAPE[1] - 2
        image["PixelData"].is_undefined_length = True
        image.save_as(path)
    refused(tmp_path, tmp_path / "IM0000")


SYNTAXES = (
    "ImplicitVRLittleEndian",
    "DeflatedExplicitVRLittleEndian",
    "ExplicitVRBigEndian",
    "RLELossless",
    "JPEGLSLossless",
)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_voxels_are_the_same_in_each_transfer_syntax(tmp_path, syntax, signed):
    values = scan() - 60 * signed
    write_series(tmp_path, values, syntax=syntax, PixelRepresentation=signed)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume(tmp_path)), values)


@pytest.mark.parametrize("signed", [0, 1])
def test_slices_of_a_series_may_have_different_transfer_syntaxes(tmp_path, signed):
    values = scan() - 60 * signed
    uids = dict.fromkeys(("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"), "1.2.3")
    mixed = write_series(tmp_path / "mixed", values, PixelRepresentation=signed, **uids)
    for number, syntax in enumerate(SYNTAXES):
        paths = write_series(
            tmp_path / syntax, values, syntax=syntax, PixelRepresentation=signed, **uids
        )
        mixed[number].write_bytes(paths[number].read_bytes())
    np.testing.assert_array_equal(sitk.GetArrayFromImage(volume(tmp_path / "mixed")), values)
