"""Folders of predictions: one run at a time, or the parts of one; maps lie where nnU-Net writes a
segmentation."""

from __future__ import annotations

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from scipy.spatial.transform import Rotation

from nnunet_nacl.nnunet.output import claim_output, open_output, save_map
from nnunet_nacl.utilities.errors import UserError

DATA = SimpleNamespace(dataset_json={}, plans={}, file_ending=".nii.gz")


CLAIM = ("args.json", {"generated_by": "tests"})


def opened(output, part):
    return open_output(output, [], DATA, CLAIM, ["maps"], part=part)


def test_runs_share_a_folder_only_as_different_parts(tmp_path):
    output = tmp_path / "out"
    with opened(output, 0):
        claim_output(output, DATA, CLAIM)
        before = {path: path.stat().st_mtime_ns for path in output.iterdir()}
        with (
            pytest.raises(UserError, match="another run is at work in .*out; wait .* part."),
            opened(output, 0),
        ):
            pass
        assert {path: path.stat().st_mtime_ns for path in output.iterdir()} == before
        with opened(output, 1):
            pass
    with opened(output, 0):
        pass
    assert {path.name for path in output.iterdir()} == {"args.json", "dataset.json", "plans.json"}


SHAPE = (4, 6, 5)  # z, y, x
SPACING_MM = (0.7, 1.3, 3.1)  # x, y, z
# axes permuted and flipped, then tilted: nothing of it is the default of any format
DIRECTION = Rotation.from_euler("xyz", [12, -8, 5], degrees=True).as_matrix() @ np.array(
    [[0, 0, 1], [-1, 0, 0], [0, 1, 0]], dtype=float
)
SCANS = [
    ("SimpleITKIO", ".nii.gz"),
    ("SimpleITKIO", ".mha"),
    ("SimpleITKIO", ".gipl"),
    ("SimpleITKIOWithReorient", ".nii.gz"),
    ("NibabelIO", ".nii"),
    ("NibabelIOWithReorient", ".nii.gz"),
]


def reader_of(name):
    return recursive_find_reader_writer_by_name(name)()


def scan(path):
    """A label map with oblique axes, and nnU-Net's view of it."""
    labels = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(SPACING_MM)
    image.SetOrigin((-31.5, 12.25, 77.0))
    if path.suffix != ".gipl":  # the format holds no direction
        image.SetDirection(DIRECTION.ravel())
    sitk.WriteImage(image, str(path))
    return path


def geometry(path):
    image = sitk.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


@pytest.mark.parametrize(("reader", "ending"), SCANS)
def test_a_map_lies_where_nnunet_writes_a_segmentation(tmp_path, reader, ending):
    reader = reader_of(reader)
    array, properties = reader.read_seg(str(scan(tmp_path / f"scan{ending}")))
    values = np.random.default_rng(1).random(array.shape[1:]).astype(np.float32)
    values.flat[:7] = [0, 1 / 255, 0.5 / 255, 1.5 / 255, 0.9981, 1, 1.0000001]
    reference = tmp_path / f"reference{ending}"
    reader.write_seg(np.rint(values * 250).astype(np.uint8), str(reference), properties)
    path = tmp_path / "maps" / f"map{ending}"
    path.parent.mkdir()
    save_map(values, path, reader, properties)
    for a, b, c in zip(geometry(path), geometry(reference), geometry(tmp_path / f"scan{ending}")):
        np.testing.assert_allclose(a, b, atol=1e-6)
        np.testing.assert_allclose(a, c, atol=1e-5)
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_allclose(
        written, sitk.GetArrayFromImage(sitk.ReadImage(str(reference))) / 250, atol=5e-3
    )
    again, _ = reader.read_seg(str(path))
    np.testing.assert_allclose(again[0].flat[:7] * 255, [0, 1, 0, 2, 255, 255, 255], rtol=1e-6)
    np.testing.assert_array_equal(
        again[0], np.rint(values.clip(0, 1) * np.float32(255)) / np.float32(255)
    )
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_a_sheared_affine_is_kept(tmp_path):
    affine = np.array([[0, 0.2, -2, 5], [-0.9, 0, 0, 6], [0.1, 1.1, 0, -7], [0, 0, 0, 1]])
    nibabel.save(
        nibabel.Nifti1Image(np.zeros(SHAPE, dtype=np.uint8), affine), tmp_path / "scan.nii.gz"
    )
    reader = reader_of("NibabelIOWithReorient")
    array, properties = reader.read_seg(str(tmp_path / "scan.nii.gz"))
    save_map(np.zeros(array.shape[1:]), tmp_path / "map.nii.gz", reader, properties)
    np.testing.assert_allclose(nibabel.load(tmp_path / "map.nii.gz").affine, affine, atol=1e-6)
