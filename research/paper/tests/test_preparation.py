"""The steps, on images whose value is known at every point of space."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_nacl_paper.datasets.preparation import (
    CentreCrop,
    Orient,
    ResampleTo,
    ResizeInPlane,
    TrimEmptySlices,
    Volumes,
)

SLOPE = np.array([0.7, -1.3, 2.1])  # of the value along x, y, z in mm
OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


def positions(image: sitk.Image) -> np.ndarray:
    """(slices, rows, columns, 3) where each voxel lies, in mm."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in image.GetSize()), indexing="ij"), -1)
    directions = np.reshape(image.GetDirection(), (3, 3))
    return (image.GetOrigin() + (index * image.GetSpacing()) @ directions.T).transpose(2, 1, 0, 3)


def ramp(
    size: tuple[int, int, int], spacing: tuple[float, float, float], direction=OBLIQUE
) -> Volumes:
    """A linear function of the place; labelled 1 where it is above its mean."""
    image = sitk.GetImageFromArray(np.zeros(size[::-1], np.float32))
    image.SetSpacing(spacing)
    image.SetOrigin((5.0, -3.0, 11.0))
    image.SetDirection(direction)
    values = positions(image) @ SLOPE
    filled = sitk.GetImageFromArray(values.astype(np.float32))
    labels = sitk.GetImageFromArray((values > values.mean()).astype(np.uint8))
    for volume in (filled, labels):
        volume.CopyInformation(image)
    return Volumes((filled,), labels)


def array(image: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(image)


@pytest.mark.parametrize("spacing_mm", [(2.0, 1.5, 1.0), (0.9, 3.1, 0.4), (3.0, 1.2, 0.8)])
def test_resampling_keeps_every_value_in_its_place(spacing_mm) -> None:
    before = ramp((21, 18, 9), (0.8, 1.2, 3.0))
    after = ResampleTo(spacing_mm)(before)
    image = after.images[0]
    assert image.GetSpacing() == spacing_mm[::-1]
    extent = [n * step for n, step in zip(before.labels.GetSize(), before.labels.GetSpacing())]
    np.testing.assert_allclose(
        np.multiply(image.GetSize(), image.GetSpacing()), extent, atol=max(spacing_mm) / 2
    )
    points = positions(image)
    # orthonormal: its transpose undoes it
    inverse = np.reshape(before.labels.GetDirection(), (3, 3))
    index = (points - before.labels.GetOrigin()) @ inverse / before.labels.GetSpacing()
    inside = ((index >= 0) & (index <= np.array(before.labels.GetSize()) - 1)).all(-1)
    assert inside.mean() > 0.2
    np.testing.assert_allclose(array(image)[inside], (points @ SLOPE)[inside], atol=1e-3)
    nearest = tuple(np.moveaxis(np.floor(index[inside] + 0.5).astype(int)[:, ::-1], -1, 0))
    agree = array(after.labels)[inside] == array(before.labels)[nearest]
    assert agree.mean() > 0.99  # half-way between two voxels either is the nearest


def test_resizing_by_two_doubles_every_pixel_and_makes_it_nominal() -> None:
    before = ramp((6, 4, 3), (0.7, 1.9, 8.0))
    after = ResizeInPlane(rows=8, columns=12)(before)
    doubled = np.kron(array(before.labels), np.ones((1, 2, 2), np.uint8))
    np.testing.assert_array_equal(array(after.labels), doubled)
    assert after.images[0].GetSpacing() == after.labels.GetSpacing() == (1.0, 1.0, 8.0)
    # Pixel centres lie a quarter of an old pixel beside the old ones: linear interpolation of
    # neighbours, 3 to 1.
    old = array(before.images[0])
    along_row = np.stack(
        [0.75 * old[..., :-1] + 0.25 * old[..., 1:], 0.25 * old[..., :-1] + 0.75 * old[..., 1:]], -1
    )
    along_row = along_row.reshape(*old.shape[:2], -1)
    both = np.stack(
        [
            0.75 * along_row[:, :-1] + 0.25 * along_row[:, 1:],
            0.25 * along_row[:, :-1] + 0.75 * along_row[:, 1:],
        ],
        2,
    )
    np.testing.assert_allclose(
        array(after.images[0])[:, 1:-1, 1:-1], both.reshape(3, -1, 10), atol=1e-4
    )


@pytest.mark.parametrize("size", [(3, 7, 10), (4, 6, 11), (9, 18, 21)])
def test_a_crop_takes_the_middle(size) -> None:
    before = ramp((21, 18, 9), (0.8, 1.2, 3.0))
    after = CentreCrop(size)(before)
    image = array(after.images[0])
    assert image.shape == array(after.labels).shape == size
    np.testing.assert_allclose(image, positions(after.images[0]) @ SLOPE, atol=1e-4)
    whole = np.array(array(before.labels).shape)
    first = (whole - size) // 2
    middle = tuple(slice(start, start + length) for start, length in zip(first, size))
    np.testing.assert_array_equal(array(after.labels), array(before.labels)[middle])


def test_a_crop_larger_than_the_image_is_filled_with_its_lowest_value_and_background() -> None:
    before = ramp((4, 5, 6), (1.0, 1.0, 2.0))
    after = CentreCrop((9, 5, 2))(before)
    image, labels = array(after.images[0]), array(after.labels)
    assert (image[[0, 7, 8]] == array(before.images[0]).min()).all() and not labels[[0, 7, 8]].any()
    np.testing.assert_array_equal(image[1:7], array(before.images[0])[:, :, 1:3])
    np.testing.assert_allclose(image[1:7], (positions(after.images[0]) @ SLOPE)[1:7], atol=1e-4)


def test_turning_puts_axial_slices_first_and_moves_nothing() -> None:
    sagittal = (0.0, 0.0, -1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
    before = ramp((5, 7, 9), (3.0, 0.9, 0.8), sagittal)
    after = Orient()(before)
    assert after.labels.GetSize() == (9, 7, 5) and after.labels.GetSpacing() == (0.8, 0.9, 3.0)
    np.testing.assert_allclose(after.labels.GetDirection(), np.eye(3).ravel())
    np.testing.assert_allclose(
        array(after.images[0]), positions(after.images[0]) @ SLOPE, atol=1e-4
    )


def test_slices_empty_in_every_channel_are_cut_off_at_the_ends_alone() -> None:
    channels = np.zeros((2, 7, 3, 3), np.int16)
    channels[0, 2, 1, 1] = channels[1, 5, 0, 0] = -4  # between them slices are empty
    volumes = Volumes(
        tuple(map(sitk.GetImageFromArray, channels)), sitk.GetImageFromArray(channels[0] * 0 + 1)
    )
    after = TrimEmptySlices()(volumes)
    assert after.labels.GetSize() == (3, 3, 4) and after.labels.GetOrigin() == (0.0, 0.0, 2.0)
    np.testing.assert_array_equal(array(after.images[1]), channels[1, 2:6])
    blank = Volumes((volumes.images[0] * 0,), volumes.labels)
    assert TrimEmptySlices()(blank) is blank
