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
    index = np.moveaxis(np.indices(image.GetSize()), 0, -1)
    directions = np.reshape(image.GetDirection(), (3, 3))
    points = image.GetOrigin() + (index * image.GetSpacing()) @ directions.T
    return points.transpose(2, 1, 0, 3)


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
def test_resampling_keeps_the_spacing_that_is_asked_and_the_extent(spacing_mm) -> None:
    before = ramp((21, 18, 9), (0.8, 1.2, 3.0))
    image = ResampleTo(spacing_mm)(before).images[0]
    assert image.GetSpacing() == spacing_mm[::-1]
    extent_mm = np.multiply(image.GetSize(), image.GetSpacing())
    extent_before_mm = np.multiply(before.labels.GetSize(), before.labels.GetSpacing())
    np.testing.assert_allclose(extent_mm, extent_before_mm, atol=max(spacing_mm) / 2)


@pytest.mark.parametrize("spacing_mm", [(2.0, 1.5, 1.0), (0.9, 3.1, 0.4), (3.0, 1.2, 0.8)])
def test_resampling_keeps_every_value_in_its_place(spacing_mm) -> None:
    before = ramp((21, 18, 9), (0.8, 1.2, 3.0))
    after = ResampleTo(spacing_mm)(before)
    points = positions(after.images[0])
    index = index_in(before.labels, points)
    last = np.array(before.labels.GetSize()) - 1
    inside = ((index >= 0) & (index <= last)).all(-1)
    assert inside.mean() > 0.2
    values = array(after.images[0])[inside]
    np.testing.assert_allclose(values, (points @ SLOPE)[inside], atol=1e-3)

    column, row, slice_number = np.floor(index[inside] + 0.5).astype(int).T
    nearest_labels = array(before.labels)[slice_number, row, column]
    agree = array(after.labels)[inside] == nearest_labels
    assert agree.mean() > 0.99  # half-way between two voxels either is the nearest


def index_in(image: sitk.Image, points: np.ndarray) -> np.ndarray:
    """Index (column, row, slice), perhaps between voxels, of points in mm, (..., 3) both."""
    inverse = np.reshape(image.GetDirection(), (3, 3))  # orthonormal: the transpose of .T
    return (points - image.GetOrigin()) @ inverse / image.GetSpacing()


def test_resizing_by_two_doubles_every_pixel_and_makes_it_nominal() -> None:
    before = ramp((6, 4, 3), (0.7, 1.9, 8.0))
    after = ResizeInPlane(rows=8, columns=12)(before)
    doubled = np.kron(array(before.labels), np.ones((1, 2, 2), np.uint8))
    np.testing.assert_array_equal(array(after.labels), doubled)
    assert after.images[0].GetSpacing() == after.labels.GetSpacing() == (1.0, 1.0, 8.0)
    interpolated = halve_pixels(halve_pixels(array(before.images[0]), axis=1), axis=2)
    np.testing.assert_allclose(array(after.images[0])[:, 1:-1, 1:-1], interpolated, atol=1e-4)


def halve_pixels(values: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation at the centres of half pixels, but for the outermost.

    They lie a quarter of a pixel beside the old centres: neighbours weigh 3 to 1.
    """
    values = np.moveaxis(values, axis, -1)
    first = 0.75 * values[..., :-1] + 0.25 * values[..., 1:]
    second = 0.25 * values[..., :-1] + 0.75 * values[..., 1:]
    halved = np.stack([first, second], -1).reshape(*values.shape[:-1], -1)
    return np.moveaxis(halved, -1, axis)


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
    image = array(after.images[0])
    added = [0, 7, 8]
    assert (image[added] == array(before.images[0]).min()).all()
    assert not array(after.labels)[added].any()
    np.testing.assert_array_equal(image[1:7], array(before.images[0])[:, :, 1:3])
    np.testing.assert_allclose(image[1:7], (positions(after.images[0]) @ SLOPE)[1:7], atol=1e-4)


def test_turning_puts_axial_slices_first_and_moves_nothing() -> None:
    sagittal = (0.0, 0.0, -1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 0.0)
    before = ramp((5, 7, 9), (3.0, 0.9, 0.8), sagittal)
    after = Orient()(before)
    assert after.labels.GetSize() == (9, 7, 5)
    assert after.labels.GetSpacing() == (0.8, 0.9, 3.0)
    np.testing.assert_allclose(after.labels.GetDirection(), np.eye(3).ravel())
    expected = positions(after.images[0]) @ SLOPE
    np.testing.assert_allclose(array(after.images[0]), expected, atol=1e-4)


def test_slices_empty_in_every_channel_are_cut_off_at_the_ends_alone() -> None:
    channels = np.zeros((2, 7, 3, 3), np.int16)
    channels[0, 2, 1, 1] = -4  # from here to the slice of the next line all slices are empty
    channels[1, 5, 0, 0] = -4
    images = tuple(map(sitk.GetImageFromArray, channels))
    volumes = Volumes(images, sitk.GetImageFromArray(np.ones_like(channels[0])))
    after = TrimEmptySlices()(volumes)
    assert after.labels.GetSize() == (3, 3, 4)
    assert after.labels.GetOrigin() == (0.0, 0.0, 2.0)
    np.testing.assert_array_equal(array(after.images[1]), channels[1, 2:6])
    blank = Volumes((volumes.images[0] * 0,), volumes.labels)
    assert TrimEmptySlices()(blank) is blank
