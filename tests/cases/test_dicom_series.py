"""DICOM series as scans: their slices in order, where they lie, and what is no scan."""

from __future__ import annotations

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", reason="needs pydicom: pip install 'nnunet_nacl[dicom]'")

from nnunet_nacl.cases.dicom_series import (  # noqa: E402
    affine_of_series,
    find_series,
    image_of_series,
    is_dicom,
    orientation_of,
    read_headers,
)
from nnunet_nacl.errors import UserError  # noqa: E402
from tests.cases.dicom_files import ORIGIN_MM, SHAPE, SPACING_MM, oblique, scan, write_series  # noqa: E402


def only(folder):
    """The one problem of a folder that holds no scan."""
    found, problems = find_series(folder)
    assert not found
    (problem,) = problems.values()
    assert "\n" not in problem
    return problem


def test_slices_are_in_the_order_of_their_places_whatever_the_files_are_called(tmp_path):
    paths = write_series(tmp_path / "a" / "b", scan(), order=np.random.default_rng(1).permutation(len(scan())))
    found, problems = find_series(tmp_path)
    ((name, files),) = found.items()
    assert not problems and files == tuple(paths) and files != tuple(sorted(paths))
    assert name.startswith("3_Head_thin_soft_") and "Doe" not in name and "patient" not in name


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAR"])
def test_the_image_lies_where_the_headers_say(tmp_path, orientation):
    import SimpleITK as sitk

    values = scan()
    write_series(tmp_path, values, order=list(range(len(values)))[::-1])
    ((files),) = find_series(tmp_path)[0].values()
    with image_of_series(files, orientation) as path:
        image = sitk.ReadImage(str(path))
        assert orientation_of([path, tmp_path / "absent", path]) == orientation
    assert not path.exists() and orientation_of([]) == ""
    assert (sitk.GetArrayFromImage(image).shape == values.shape) == (orientation != "SAR")
    turn, affine = oblique(), affine_of_series(read_headers(files))
    for k, j, i in ((0, 0, 0), (8, 16, 13), (4, 0, 13)):
        place = np.array(ORIGIN_MM) + turn @ (np.array((i, j, k)) * SPACING_MM[::-1])
        index = image.TransformPhysicalPointToIndex(place.tolist())
        np.testing.assert_allclose(image.TransformIndexToPhysicalPoint(index), place, atol=1e-4)
        np.testing.assert_allclose((affine @ (i, j, k, 1))[:3], place, atol=1e-6)
        assert image[index] == values[k, j, i]


def test_a_scale_of_each_slice_is_applied(tmp_path):
    import SimpleITK as sitk

    values = scan()
    write_series(tmp_path, values, RescaleSlope={i: 1 + i / 8 for i in range(len(values))})
    with image_of_series(next(iter(find_series(tmp_path)[0].values())), "LPS") as path:
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    scale = 1 + np.arange(len(values))[:, None, None] / 8
    np.testing.assert_allclose(found, (values + 10) * scale - 10, atol=1e-3)


def test_two_series_in_one_folder_are_two_scans(tmp_path):
    write_series(tmp_path / "one", scan())
    for i, path in enumerate(write_series(tmp_path / "two", scan(1)[:4], number=4)):
        path.rename(tmp_path / "one" / f"other{i}")
    found, problems = find_series(tmp_path)
    assert not problems and sorted(len(files) for files in found.values()) == [4, len(scan())]


def test_what_is_no_image_is_passed_over(tmp_path):
    from pydicom.uid import BasicTextSRStorage

    paths = write_series(tmp_path, scan())
    report = pydicom.dcmread(paths[0])
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID = BasicTextSRStorage
    report.save_as(tmp_path / "report")
    (tmp_path / "notes.txt").write_text("nothing")
    assert not is_dicom(tmp_path / "notes.txt") and not is_dicom(tmp_path / "absent") and is_dicom(paths[0])
    found, problems = find_series(tmp_path)
    assert len(found) == 1 and not problems
    assert find_series(tmp_path / "absent") == ({}, {})


PLACES = [np.array(ORIGIN_MM) + oblique()[:, 2] * SPACING_MM[0] * i for i in range(SHAPE[0])]
BAD_HEADERS = {
    "enhanced multi-frame": {"NumberOfFrames": 5},
    "colour": {"SamplesPerPixel": {4: 3}},
    "no ImagePositionPatient": {"ImagePositionPatient": {2: None}},
    "no FrameOfReferenceUID": {"FrameOfReferenceUID": ""},
    "a damaged header": {"ImagePositionPatient": {2: [1.0, 2.0]}},
    "other size, orientation or pixel spacing": {"ImageOrientationPatient": {8: [1, 0, 0, 0, 1, 0]}},
    "lie in the same place": {"ImagePositionPatient": {3: list(PLACES[4])}},
    "not evenly spaced": {"ImagePositionPatient": {i: list(PLACES[i] + PLACES[1] - PLACES[0]) for i in (6, 7, 8)}},
    "tilted gantry": {"ImagePositionPatient": {i: list(place + (0, 0.1 * i, 0)) for i, place in enumerate(PLACES)}},
}


@pytest.mark.parametrize("message", BAD_HEADERS)
def test_series_that_are_no_even_stack_are_refused_in_one_line(tmp_path, message):
    changes = {name: rounded(value) for name, value in BAD_HEADERS[message].items()}
    write_series(tmp_path, scan(), **changes)
    if message == "not evenly spaced":  # or is a slice missing? The gap is twice as large
        message = "a slice is missing"
    assert message in only(tmp_path)


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [f"{float(one):.9f}" for one in value] if isinstance(value, list) else value


@pytest.mark.parametrize("slices", [range(1, 9), (0, 1, 3), range(40)])
def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, slices):
    kept = list(slices)
    paths = write_series(tmp_path, scan(shape=(kept[-1] + 1, 8, 8)))
    for i, path in enumerate(paths):
        if i not in kept or (len(kept) > 3 and i == kept[-2]):
            path.unlink()
    problem = only(tmp_path)
    first = paths[kept[-3] if len(kept) > 3 else 1]
    assert str(first) in problem and paths[kept[-1]].name in problem and "a slice is missing" in problem
    assert "5 mm apart" in problem


def test_slices_a_little_off_are_taken_and_uneven_ones_not(tmp_path):
    places = {i: rounded(list(np.round(place, 1))) for i, place in enumerate(PLACES)}
    write_series(tmp_path / "rounded", scan(), ImagePositionPatient=places)
    assert len(find_series(tmp_path / "rounded")[0]) == 1
    normal = oblique()[:, 2]
    places = {i: rounded(list(place + normal * 0.05 * i**2)) for i, place in enumerate(PLACES)}
    write_series(tmp_path / "uneven", scan(), ImagePositionPatient=places)
    assert "not evenly spaced" in only(tmp_path / "uneven")


def test_one_image_is_no_volume(tmp_path):
    write_series(tmp_path, scan()[:1])
    assert "one image, which is no volume" in only(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    paths = write_series(tmp_path, scan())
    whole = paths[4].read_bytes()
    paths[4].write_bytes(whole[:-100])
    (files,) = find_series(tmp_path)[0].values()
    with pytest.raises(UserError, match=f"{paths[4]}: its voxels cannot be read"), image_of_series(files, "LPS"):
        pass
    paths[4].write_bytes(whole[:500])  # in the middle of the header
    assert str(paths[4]) in next(iter(find_series(tmp_path)[1].values()))
    paths[4].write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    found, problems = find_series(tmp_path)
    assert str(paths[4]) in problems[paths[4].name] and "a slice is missing" in " ".join(problems.values())


def test_without_the_packages_it_is_said_what_to_install(tmp_path, monkeypatch):
    write_series(tmp_path, scan())
    monkeypatch.setattr("nnunet_nacl.cases.dicom_series.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'nnunet_nacl\[dicom\]'"):
        find_series(tmp_path)
