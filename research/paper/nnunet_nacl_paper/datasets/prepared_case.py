"""One case of a challenge: read, checked, brought to the paper's grid, written for nnU-Net."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunet_nacl_paper.datasets.challenges import Challenge
from nnunet_nacl_paper.datasets.layouts import SourceCase
from nnunet_nacl_paper.datasets.preparation import Step, Volumes, array_of
from nnunet_nacl_paper.files import InputError, replacing, why_broken

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True)
class CaseTask:
    """What to do with a case.

    Attributes:
        source: Its files.
        challenge: Whose they are.
        native: Without the paper's preparation.
        images, labels: Where to.
    """

    source: SourceCase
    challenge: Challenge
    native: bool
    images: tuple[Path, ...]
    labels: Path

    @property
    def outputs(self) -> tuple[Path, ...]:
        """What is written of it."""
        return *self.images, self.labels


def prepare_case(task: CaseTask) -> float:
    """Write a case.

    Returns:
        The share of the labelled voxels that the preparation did not cut off.

    Raises:
        InputError: A file cannot be read, grids differ, or a label should not be there.
    """
    # nnU-Net must not take the data set for complete
    (task.labels.parents[1] / "dataset.json").unlink(missing_ok=True)
    volumes = _read(task.source, task.challenge)
    kept = 1.0
    if not task.native:
        volumes, kept = _apply_steps(volumes, task.challenge.steps)
    for image, path in zip((*volumes.images, volumes.labels), task.outputs):
        _write(image, path)
    return kept


def _apply_steps(volumes: Volumes, steps: Sequence[Step]) -> tuple[Volumes, float]:
    """The volumes after all steps, and the share of the labelled voxels that is left."""
    kept = 1.0
    for step in steps:
        changed = step(volumes)
        if step.cuts:
            before = int(np.count_nonzero(array_of(volumes.labels)))
            after = int(np.count_nonzero(array_of(changed.labels)))
            if before > 0:
                kept *= after / before
        volumes = changed
    return volumes, kept


def _write(image: sitk.Image, path: Path) -> None:
    """Write an image whole or not at all."""
    import SimpleITK as sitk

    with replacing(path, ".nii.gz") as temporary:
        try:
            sitk.WriteImage(image, str(temporary))
        except RuntimeError as error:  # so SimpleITK reports a full disk, or not at all
            raise OSError(errno.ENOSPC, str(error).splitlines()[-1]) from None
        problem = why_broken(temporary)
        if problem:
            raise OSError(errno.ENOSPC, problem)


def _read(source: SourceCase, challenge: Challenge) -> Volumes:
    """A case in our labels, all images on the first one's grid."""
    labels = _read_labels(source.labels, challenge)
    images: list[sitk.Image] = []
    for path in dict.fromkeys(source.images):
        volumes = _volumes(_load(path), path, challenge)
        if not _is_same_grid(volumes[-1], labels):
            raise InputError(
                f"{path}: has {_describe_grid(volumes[-1])}, its segmentation"
                f" {source.labels.name} {_describe_grid(labels)}; expected the same grid."
            )
        images += volumes
    # nnU-Net overlays arrays, whatever their origins and directions
    for image in (*images[1:], labels):
        image.CopyInformation(images[0])
    return Volumes(tuple(images), labels)


def _is_same_grid(image: sitk.Image, labels: sitk.Image) -> bool:
    if image.GetSize() != labels.GetSize():
        return False
    return np.allclose(image.GetSpacing(), labels.GetSpacing(), rtol=1e-3)


def _volumes(image: sitk.Image, path: Path, challenge: Challenge) -> list[sitk.Image]:
    """The 3D images of a file."""
    if challenge.volumes == 1:
        expected_sizes = image.GetSize()[:3]
        expected = "one volume"
    else:
        expected_sizes = (*image.GetSize()[:3], challenge.volumes)
        expected = f"{challenge.volumes} volumes ({', '.join(challenge.channels)})"
    is_vector_image = image.GetNumberOfComponentsPerPixel() > 1
    if image.GetDimension() < 3 or image.GetSize() != expected_sizes or is_vector_image:
        raise InputError(
            f"{path}: has size {image.GetSize()}; {challenge.title} has {expected} there."
        )
    if challenge.volumes == 1:
        return [image]
    return [image[:, :, :, volume] for volume in range(challenge.volumes)]


def _read_labels(path: Path, challenge: Challenge) -> sitk.Image:
    """The segmentation in our labels."""
    import SimpleITK as sitk

    image = _load(path)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(f"{path}: has size {image.GetSize()}; expected a segmentation in 3D.")
    array = array_of(image)
    ours = np.zeros(array.shape, np.uint8)
    for label in np.unique(array).tolist():
        if label not in challenge.values:
            known = ", ".join(map(str, sorted(challenge.values)))
            raise InputError(
                f"{path}: holds label {label:g}; {challenge.title} has the labels {known}."
            )
        ours[array == label] = challenge.values[label]
    labels = sitk.GetImageFromArray(ours)
    labels.CopyInformation(image)
    return labels


def _load(path: Path) -> sitk.Image:
    """An image as it is in its file; InputError where it is not whole."""
    import SimpleITK as sitk

    try:
        broken = why_broken(path)
        if not broken:
            return sitk.ReadImage(str(path))
    except OSError as error:
        broken = str(error.strerror)
    except RuntimeError as error:  # SimpleITK's
        broken = str(error).splitlines()[-1]
    raise InputError(f"{path}: cannot be read as an image ({broken}); download or unpack it again.")


def _describe_grid(image: sitk.Image) -> str:
    size = " x ".join(str(count) for count in image.GetSize())
    spacing_mm = " x ".join(f"{step:g}" for step in image.GetSpacing())
    return f"{size} voxels of {spacing_mm} mm"
