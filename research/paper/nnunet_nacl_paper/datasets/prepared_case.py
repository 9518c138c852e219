"""One case of a challenge: read, checked, brought to the paper's grid, and written as nnU-Net reads
it."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_nacl_paper.datasets.challenges import Challenge
from nnunet_nacl_paper.datasets.layouts import SourceCase
from nnunet_nacl_paper.datasets.preparation import Volumes, array_of
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


def prepare_case(task: CaseTask) -> dict[str, Any]:
    """Writes a case.

    Returns:
        Its record: the patient, and the share of the labelled voxels that the preparation did not
        cut off.

    Raises:
        InputError: A file cannot be read, grids differ, or a label should not be there.
    """
    import SimpleITK as sitk

    # nnU-Net must not take the data set for complete
    (task.labels.parents[1] / "dataset.json").unlink(missing_ok=True)
    volumes, kept = _read(task.source, task.challenge), 1.0
    for step in () if task.native else task.challenge.steps:
        before = np.count_nonzero(array_of(volumes.labels)) if step.cuts else 0
        volumes = step(volumes)
        if before:
            kept *= int(np.count_nonzero(array_of(volumes.labels))) / int(before)
    for image, path in zip((*volumes.images, volumes.labels), task.outputs):
        with replacing(path, ".nii.gz") as temporary:
            try:
                sitk.WriteImage(image, str(temporary))
            except RuntimeError as error:  # so SimpleITK reports a full disk, or not at all
                raise OSError(errno.ENOSPC, str(error).splitlines()[-1]) from None
            if problem := why_broken(temporary):
                raise OSError(errno.ENOSPC, problem)
    return {"patient": task.source.patient, "labelled_voxels_kept": kept}


def _read(source: SourceCase, challenge: Challenge) -> Volumes:
    labels = _read_labels(source.labels, challenge)
    images: list[sitk.Image] = []
    for path in dict.fromkeys(source.images):
        images += _volumes(_load(path), path, challenge)
        if images[-1].GetSize() != labels.GetSize() or not np.allclose(
            images[-1].GetSpacing(), labels.GetSpacing(), rtol=1e-3
        ):
            raise InputError(
                f"{path}: has {_grid(images[-1])}, its segmentation {source.labels.name}"
                f" {_grid(labels)}; expected the same grid."
            )
    # nnU-Net overlays arrays, whatever their origins and directions
    for image in (*images[1:], labels):
        image.CopyInformation(images[0])
    return Volumes(tuple(images), labels)


def _volumes(image: sitk.Image, path: Path, challenge: Challenge) -> list[sitk.Image]:
    """The 3D images of a file."""
    dimension = 4 if challenge.volumes > 1 else 3
    found = image.GetSize()[3] if image.GetDimension() == 4 else 1
    if (
        image.GetDimension() != dimension
        or found != challenge.volumes
        or image.GetNumberOfComponentsPerPixel() > 1
    ):
        wanted = (
            f"{challenge.volumes} volumes ({', '.join(challenge.channels)})"
            if dimension == 4
            else "one volume"
        )
        raise InputError(
            f"{path}: has size {image.GetSize()}; {challenge.title} has {wanted} there."
        )
    return [image] if dimension == 3 else [image[:, :, :, volume] for volume in range(found)]


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


def _grid(image: sitk.Image) -> str:
    def shown(values: Sequence[float]) -> str:
        return " x ".join(f"{value:g}" for value in values)

    return f"{shown(image.GetSize())} voxels of {shown(image.GetSpacing())} mm"
