"""Files that are cut off or hold something else are told apart from whole ones; large npz files
take little memory."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image
from skimage import io

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.nnunet.image_files import read_probabilities, read_segmentation
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.images import why_broken

VOXELS = np.random.default_rng(0).integers(0, 200, (9, 17, 14)).astype(np.uint8)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_file_that_was_cut_off_anywhere_is_broken(tmp_path, ending):
    path = tmp_path / f"image{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(path))
    assert why_broken(path) == ""
    whole = path.read_bytes()
    for size in (0, 2, 100, 300, len(whole) // 2, len(whole) - 40):
        path.write_bytes(whole[:size])
        assert "truncated" in why_broken(path) or (
            size == 0 and why_broken(path) == "it is empty"
        ), size


def test_vectors_and_other_variants_are_whole(tmp_path):
    vectors = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.float32), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / "vectors.nii.gz"))
    nibabel.save(nibabel.Nifti2Image(VOXELS, np.eye(4)), tmp_path / "second.nii")
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), tmp_path / "plain.nii")
    # SimpleITK reads it
    (tmp_path / "plain.nii.gz").write_bytes((tmp_path / "plain.nii").read_bytes())
    content = (tmp_path / "plain.nii").read_bytes()
    (tmp_path / "members.nii.gz").write_bytes(
        gzip.compress(content[:500]) + gzip.compress(content[500:]) + bytes(64)
    )
    (tmp_path / "unknown.xyz").write_bytes(b"1")
    for name in ("vectors.nii.gz", "second.nii", "plain.nii.gz", "members.nii.gz", "unknown.xyz"):
        assert why_broken(tmp_path / name) == ""
    for name in ("plain.nii.gz", "members.nii.gz"):
        found = read_segmentation(SimpleITKIO(), tmp_path / name)[0]
        np.testing.assert_array_equal(found, VOXELS.transpose())


def test_a_segmentation_of_colours_or_volumes_that_differ_is_none(tmp_path):
    labels = (VOXELS[0] % 3).astype(np.uint8)
    palette = Image.fromarray(labels, "P")
    # the red of a structure is that of the background
    palette.putpalette([0, 0, 0, 0, 128, 0, 0, 0, 128])
    palette.save(tmp_path / "palette.png")
    io.imsave(tmp_path / "grey.png", np.stack([labels] * 3, -1), check_contrast=False)
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS[:, None]), str(tmp_path / "volumes.nii.gz"))
    np.testing.assert_array_equal(
        read_segmentation(NaturalImage2DIO(), tmp_path / "grey.png")[0][0], labels
    )
    for reader, name in ((NaturalImage2DIO(), "palette.png"), (SimpleITKIO(), "volumes.nii.gz")):
        with pytest.raises(
            UserError, match=f"{name}: [39] channels that differ; a segmentation has one"
        ):
            read_segmentation(reader, tmp_path / name)
    sitk.WriteImage(
        sitk.JoinSeries([sitk.GetImageFromArray(labels[None])] * 2), str(tmp_path / "equal.nii.gz")
    )
    with pytest.raises(UserError, match="equal.nii.gz: four dimensions"):
        read_segmentation(SimpleITKIO(), tmp_path / "equal.nii.gz")


def test_what_is_damaged_inside_is_noticed(tmp_path) -> None:
    path = tmp_path / "case.npz"
    labels = Labels(("background", "organ"), (0, 1), False, None, (0, 1))
    saved = np.random.default_rng(0).random((2, 40, 200, 250), np.float32)  # hardly compressible
    np.savez_compressed(path, probabilities=saved)
    np.testing.assert_array_equal(
        read_probabilities(path, labels, saved.shape[1:], "segmentation"), saved
    )
    whole = path.read_bytes()
    size = whole.index(b"PK\x01\x02") + 24  # uncompressed, in the directory at the end
    for content in (
        whole[:-200],
        whole[:300] + bytes(20) + whole[320:],
        whole[:size] + struct.pack("<I", 2**31) + whole[size + 4 :],
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match="truncated or corrupt"):
            read_probabilities(path, labels, saved.shape[1:], "segmentation")
