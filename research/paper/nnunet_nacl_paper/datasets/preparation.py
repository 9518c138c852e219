"""Steps that bring a case to the paper's grid; sizes and spacings are (slices, rows, columns)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True)
class Volumes:
    """A case's images, one a channel, and its label map, all on one grid."""

    images: tuple[sitk.Image, ...]
    labels: sitk.Image

    def each(self, change: Callable[[sitk.Image], sitk.Image]) -> Volumes:
        """All of them changed alike."""
        return Volumes(tuple(map(change, self.images)), change(self.labels))


class Step(Protocol):
    """One step of a preparation: a function of a case, whose text says what it does.

    Attributes:
        cuts: It may remove labelled voxels.
    """

    cuts: ClassVar[bool] = False

    def __call__(self, volumes: Volumes) -> Volumes: ...


@dataclass(frozen=True)
class Orient(Step):
    """Turns axes until slices are axial and come first in the array; voxels keep their values.

    Attributes:
        axes: Of DICOM: where columns, rows and slices lead.
    """

    axes: str = "LPS"

    def __str__(self) -> str:
        return f"turned to {self.axes}"

    def __call__(self, volumes: Volumes) -> Volumes:
        import SimpleITK as sitk

        return volumes.each(lambda image: sitk.DICOMOrient(image, self.axes))


@dataclass(frozen=True)
class ResizeInPlane(Step):
    """Resizes every slice; images linearly, labels to the nearest voxel.

    The pixel gets the nominal size of 1 mm: nnU-Net resamples to a common spacing, and with true
    spacings it would undo the resizing wherever fields of view differ. Distances in the plane are
    in pixels from then on.

    Attributes:
        rows, columns: Of the result.
    """

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"slices resized to {self.rows} x {self.columns} (pixels of nominally 1 mm)"

    def __call__(self, volumes: Volumes) -> Volumes:
        width, height, slices = volumes.labels.GetSize()
        across, down, between_mm = volumes.labels.GetSpacing()
        size = (self.columns, self.rows, slices)
        spacing_mm = (across * width / self.columns, down * height / self.rows, between_mm)
        resized = _resample(volumes, size, spacing_mm)
        for image in (*resized.images, resized.labels):
            image.SetSpacing((1.0, 1.0, between_mm))
        return resized


@dataclass(frozen=True)
class ResampleTo(Step):
    """Resamples to a spacing about the same centre; images linearly, labels to the nearest voxel.

    Attributes:
        spacing_mm: (slices, rows, columns).
    """

    spacing_mm: tuple[float, float, float]

    def __str__(self) -> str:
        return f"resampled to {' x '.join(f'{step:g}' for step in self.spacing_mm)} mm"

    def __call__(self, volumes: Volumes) -> Volumes:
        new_spacing_mm = self.spacing_mm[::-1]
        extent_mm = np.multiply(volumes.labels.GetSize(), volumes.labels.GetSpacing())
        size = np.maximum(1, np.rint(extent_mm / new_spacing_mm)).astype(int)
        return _resample(volumes, size.tolist(), new_spacing_mm)


@dataclass(frozen=True)
class CentreCrop(Step):
    """Cuts out the centre; smaller images are filled up with their lowest value, labels with 0.

    Attributes:
        size: (slices, rows, columns).
    """

    size: tuple[int, int, int]
    cuts: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"cropped to the central {' x '.join(map(str, self.size))} voxels"

    def __call__(self, volumes: Volumes) -> Volumes:
        images = []
        for image in volumes.images:
            lowest = float(array_of(image).min())
            images.append(self._crop(image, lowest))
        return Volumes(tuple(images), self._crop(volumes.labels, 0.0))

    def _crop(self, image: sitk.Image, fill: float) -> sitk.Image:
        import SimpleITK as sitk

        size = self.size[::-1]
        missing = np.maximum(0, np.subtract(size, image.GetSize()))
        before = missing // 2
        after = missing - before
        padded = sitk.ConstantPad(image, before.tolist(), after.tolist(), fill)
        start = np.subtract(padded.GetSize(), size) // 2
        return sitk.RegionOfInterest(padded, size, start.tolist())


@dataclass(frozen=True)
class TrimEmptySlices(Step):
    """Cuts off the slices at both ends in which all channels are 0, as outside a stripped skull."""

    cuts: ClassVar[bool] = True

    def __str__(self) -> str:
        return "empty slices at both ends cut off"

    def __call__(self, volumes: Volumes) -> Volumes:
        by_channel = [array_of(image).any(axis=(1, 2)) for image in volumes.images]
        is_filled = np.any(by_channel, axis=0)
        if not is_filled.any():
            return volumes
        first, last = np.flatnonzero(is_filled)[[0, -1]].tolist()
        return volumes.each(lambda image: image[:, :, first : last + 1])


def array_of(image: sitk.Image) -> np.ndarray:
    """(slices, rows, columns) view of an image."""
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(image)


def _resample(volumes: Volumes, size: Sequence[int], spacing_mm: Sequence[float]) -> Volumes:
    """Bring a case to a grid with the same centre and directions.

    Images are interpolated linearly, as float32; labels take the nearest voxel's.

    Args:
        size, spacing_mm: As in SimpleITK, columns first.
    """
    import SimpleITK as sitk

    old = volumes.labels
    is_same_spacing = np.allclose(spacing_mm, old.GetSpacing(), rtol=1e-4, atol=0)
    if tuple(size) == old.GetSize() and is_same_spacing:
        return volumes
    old_spacing_mm = np.array(old.GetSpacing())
    old_length_mm = np.subtract(old.GetSize(), 1) * old_spacing_mm  # between outermost centres
    new_length_mm = np.subtract(size, 1) * np.array(spacing_mm)
    first_voxel = (old_length_mm - new_length_mm) / 2 / old_spacing_mm
    origin = old.TransformContinuousIndexToPhysicalPoint(first_voxel.tolist())

    def resample(image: sitk.Image, interpolator: int, pixel_type: int) -> sitk.Image:
        return sitk.Resample(
            image,
            list(size),
            sitk.Transform(),
            interpolator,
            origin,
            list(spacing_mm),
            old.GetDirection(),
            0.0,
            pixel_type,
        )

    images = [resample(image, sitk.sitkLinear, sitk.sitkFloat32) for image in volumes.images]
    labels = resample(old, sitk.sitkNearestNeighbor, old.GetPixelID())
    return Volumes(tuple(images), labels)
