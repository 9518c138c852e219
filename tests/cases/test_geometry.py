"""What nnU-Net's readers say about an image means one thing, and images in different places are
told apart."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_nacl.cases.geometry import Geometry, geometry_difference
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.utilities.errors import UserError
from tests.runs.folders import make_model

READERS = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")


def store_mirrored(path) -> None:
    """The same physical image, its first axis stored the other way round."""
    image = nibabel.load(path)
    flipped = image.as_reoriented([[0, -1], [1, 1], [2, 1]])
    nibabel.save(nibabel.Nifti1Image(np.asarray(flipped.dataobj), flipped.affine), path)


def mirror_in_space(path) -> None:
    """The same array, but left and right of the patient swapped; the origin is that of the first
    voxel still."""
    image = sitk.ReadImage(str(path))
    direction = np.reshape(image.GetDirection(), (3, 3))
    image.SetDirection(np.ravel(np.diag([-1, 1, 1]) @ direction).tolist())
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("reader", ["SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_readers_that_turn_images_do_not_care_how_they_are_stored(tmp_path, reader):
    model = make_model(tmp_path, reader=reader, cases=1)
    folder = PredictionFolder.open(model.validation(), model.references)
    [case] = folder.names
    before = folder.case(case)
    store_mirrored(folder.files(case)["reference"])
    after = folder.case(case)
    np.testing.assert_array_equal(after.truth, before.truth)
    store_mirrored(folder.files(case)["segmentation"])
    np.testing.assert_array_equal(folder.case(case).segmentation, before.segmentation)


@pytest.mark.parametrize("reader", READERS)
def test_a_truth_that_faces_the_other_way_is_refused(tmp_path, reader):
    model = make_model(tmp_path, reader=reader, cases=1)
    folder = PredictionFolder.open(model.validation(), model.references)
    [case] = folder.names
    mirror_in_space(folder.files(case)["reference"])
    # a reader that turns both images the same way sees another position instead: the mirror image
    # lies elsewhere
    name = "origin" if reader.endswith("Reorient") else "direction"
    with pytest.raises(UserError, match=rf"other geometry than the prediction .*\({name} "):
        folder.case(case)


def make_geometry(spacing=(2.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), tilt=0.0) -> Geometry:
    """That of a volume, as SimpleITK gives it; ``tilt`` is an angle within slices."""
    cosine = np.cos(tilt)
    sine = np.sin(tilt)
    stuff = {
        "spacing": spacing[::-1],
        "origin": origin,
        "direction": (cosine, -sine, 0, sine, cosine, 0, 0, 0, 1),
    }
    return Geometry.of({"spacing": spacing, "sitk_stuff": stuff})


def difference_from_first(other: Geometry) -> str:
    return geometry_difference(make_geometry(), other, (4, 5, 6), (4, 5, 6))


def test_differences_that_formats_make_are_none():
    rounded = make_geometry((2.01, 1.0, 1.0), origin=(0.0, 0.0, 0.49), tilt=0.009)
    assert difference_from_first(rounded) == ""


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"spacing": (2.1, 1.0, 1.0)}, "spacing (2.0, 1.0, 1.0) and (2.1, 1.0, 1.0)"),
        ({"origin": (0.0, 0.0, 0.51)}, "origin (0.0, 0.0, 0.0) and (0.0, 0.0, 0.51)"),
        ({"tilt": 0.011}, "direction (1.0, 0.0, 0.0, 0.0, 1.0"),
    ],
    ids=["spacing", "origin", "direction"],
)
def test_larger_differences_are_named_with_both_values(changes, message):
    assert difference_from_first(make_geometry(**changes)).startswith(message)


def test_other_shapes_are_named_first():
    difference = geometry_difference(make_geometry(), make_geometry(), (4, 5, 6), (4, 5))
    assert difference == "shape (4, 5, 6) and (4, 5)"


def test_a_flat_image_is_compared_with_what_is_known_of_the_other():
    stuff = {"spacing": (1, 1), "origin": (0, 0), "direction": (1, 0, 0, 1)}
    flat = Geometry.of({"spacing": (999, 1, 1), "sitk_stuff": stuff})
    in_space = Geometry((999.0, 1.0, 1.0), np.eye(4))
    without_place = Geometry((999.0, 1.0, 1.0))
    shape = (1, 5, 6)
    assert geometry_difference(flat, in_space, shape, shape) == "2 and 3 dimensions"
    assert geometry_difference(flat, without_place, shape, shape) == ""


@pytest.mark.parametrize(
    ("reader", "ending", "array", "spacing", "size", "unit"),
    [
        ("SimpleITKIO", ".nii.gz", (3, 4, 5), (3.0, 1.5, 0.5), 3 * 1.5 * 0.5 / 1000, "ml"),
        ("NibabelIO", ".nii.gz", (1, 4, 5), (999.0, 0.8, 0.5), 0.8 * 0.5, "mm2"),
        ("SimpleITKIO", ".nii.gz", (4, 5), (0.8, 0.5), 0.8 * 0.5, "mm2"),
        ("NaturalImage2DIO", ".png", (4, 5), (1.0, 1.0), 1.0, "pixels"),
        ("Tiff3DIO", ".tif", (1, 4, 5), (3.0, 1.5, 0.5), 3 * 1.5 * 0.5 / 1000, "ml"),
    ],
)
def test_a_voxel_has_one_unit(tmp_path, reader, ending, array, spacing, size, unit):
    from tests.runs.folders import write_image, write_json

    write_image(np.zeros(array, dtype=np.uint8), tmp_path / f"a{ending}", spacing)
    if reader == "Tiff3DIO":
        write_json(tmp_path / "a.json", {"spacing": spacing})
    reader_of_nnunet = recursive_find_reader_writer_by_name(reader)()
    _, properties = reader_of_nnunet.read_seg(str(tmp_path / f"a{ending}"))
    geometry = Geometry.of(properties)
    assert (geometry.voxel_size, geometry.unit) == (pytest.approx(size), unit)
