"""The steps that bring a case to the paper's grid. Their sizes and spacings are (slices, rows,
columns)."""

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
        spacing = self.spacing_mm[::-1]
        old = zip(volumes.labels.GetSize(), volumes.labels.GetSpacing(), spacing)
        return _resample(
            volumes, [max(1, round(size * before / after)) for size, before, after in old], spacing
        )


@dataclass(frozen=True)
class CentreCrop(Step):
    """Cuts out the centre; what is smaller is filled up with the image's lowest value, labels with
    background.

    Attributes:
        size: (slices, rows, columns).
    """

    size: tuple[int, int, int]
    cuts: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"cropped to the central {' x '.join(map(str, self.size))} voxels"

    def __call__(self, volumes: Volumes) -> Volumes:
        images = tuple(
            self._cropped(image, float(array_of(image).min())) for image in volumes.images
        )
        return Volumes(images, self._cropped(volumes.labels, 0.0))

    def _cropped(self, image: sitk.Image, fill: float) -> sitk.Image:
        import SimpleITK as sitk

        size = self.size[::-1]
        missing = [max(0, wanted - there) for wanted, there in zip(size, image.GetSize())]
        lower = [count // 2 for count in missing]
        padded = sitk.ConstantPad(
            image, lower, [count - low for count, low in zip(missing, lower)], fill
        )
        start = [(there - wanted) // 2 for wanted, there in zip(size, padded.GetSize())]
        return sitk.RegionOfInterest(padded, size, start)


@dataclass(frozen=True)
class TrimEmptySlices(Step):
    """Cuts off the slices at both ends in which every channel is 0 everywhere, as outside a
    stripped skull."""

    cuts: ClassVar[bool] = True

    def __str__(self) -> str:
        return "empty slices at both ends cut off"

    def __call__(self, volumes: Volumes) -> Volumes:
        filled = np.any(
            [(array_of(image) != 0).any(axis=(1, 2)) for image in volumes.images], axis=0
        )
        if not filled.any():
            return volumes
        first, last = np.flatnonzero(filled)[[0, -1]].tolist()
        return volumes.each(lambda image: image[:, :, first : last + 1])


def array_of(image: sitk.Image) -> np.ndarray:
    """(slices, rows, columns) view of an image."""
    import SimpleITK as sitk

    return sitk.GetArrayViewFromImage(image)


def _resample(volumes: Volumes, size: Sequence[int], spacing_mm: Sequence[float]) -> Volumes:
    """On a grid with the same centre and directions; ``size`` and ``spacing_mm`` as in SimpleITK
    (columns first)."""
    import SimpleITK as sitk

    old = volumes.labels
    if tuple(size) == old.GetSize() and np.allclose(
        spacing_mm, old.GetSpacing(), rtol=1e-4, atol=0
    ):
        return volumes
    axes = zip(old.GetSize(), old.GetSpacing(), size, spacing_mm)
    corner = [((n - 1) * step - (m - 1) * new) / 2 / step for n, step, m, new in axes]
    grid = [
        old.TransformContinuousIndexToPhysicalPoint(corner),
        list(spacing_mm),
        old.GetDirection(),
    ]

    def moved(image: sitk.Image, interpolator: int, kind: int) -> sitk.Image:
        return sitk.Resample(image, list(size), sitk.Transform(), interpolator, *grid, 0.0, kind)

    images = tuple(moved(image, sitk.sitkLinear, sitk.sitkFloat32) for image in volumes.images)
    return Volumes(images, moved(old, sitk.sitkNearestNeighbor, old.GetPixelID()))
