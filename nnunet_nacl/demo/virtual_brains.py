"""Makes virtual brains as a Decathlon task: a deformed template, clean and noisy images, and drawn
labels."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage, special
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import temporary_folder

TASK_NAME = "Task90_VirtualBrains"
LABELS = ("background", "grey matter", "white matter")
SPACING_MM = 3.5
NUM_TRAINING, NUM_VALIDATION, NUM_TEST = 16, 40, 8
NOISE = 15.0
"""How many times the noise of a noisy scan is that of a clean one: no network that saw clean scans
alone can cope."""
BAD_DICE = 0.65
"""Dice below which a brain is bad: that of clean scans is well above it, that of noisy ones well
below."""
SHAPE = (48, 56, 48)
"""Grid of every subject, in voxels along x, y, z; the largest brains touch its border."""

DESCRIPTION = {
    "name": "VirtualBrains",
    "description": (
        "Virtual brains made from the ICBM152 template: NOT patients, nor volunteers. Each is the"
        " same average brain, deformed, re-coloured and made noisy at random. Every second scan"
        " that no network is trained on is very noisy. They say nothing about how a network"
        " performs on people."
    ),
    "reference": (
        "ICBM 2009a nonlinear symmetric atlas, McConnell Brain Imaging Centre, McGill University,"
        " as shipped with the Python package nilearn; Fonov et al., NeuroImage 54(1), 2011"
    ),
    "licence": (
        "Template: Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal"
        " Neurological Institute, McGill University. Permission to use, copy, modify, and"
        " distribute for any purpose and without fee is granted by its authors, provided that this"
        " notice appears in all copies."
    ),
    "tensorImageSize": "3D",
    "modality": {"0": "MRI"},
    "labels": {str(value): name for value, name in enumerate(LABELS)},
}


@dataclass(frozen=True)
class Template:
    """An average brain.

    Attributes:
        t1: (x, y, z) T1-weighted intensity, 0 to 1.
        probabilities: (3, x, y, z) probability of each of ``LABELS``.
        affine: (4, 4) voxel to millimetres.
    """

    t1: np.ndarray
    probabilities: np.ndarray
    affine: np.ndarray


def write_virtual_brains(folder: Path) -> Path:
    """Writes virtual subjects in the Decathlon's format; the folder, which is returned, appears
    when it is complete.

    Files are made alike each time. Of the folds in splits_final.json the first trains on
    ``NUM_TRAINING`` clean scans and validates on ``NUM_VALIDATION``, every second of them noisy;
    the others validate on the clean ones. New scans are in imagesTs, the noisy ones second.

    Raises:
        UserError: nilearn is not installed.
    """
    template = load_template()
    num_labelled = NUM_TRAINING + NUM_VALIDATION
    names = [f"brain_{number + 1:03d}" for number in range(num_labelled + NUM_TEST)]
    with temporary_folder(folder.parent) as unfinished:
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (unfinished / part).mkdir()
        for number, name in enumerate(tqdm(names, desc="drawing virtual brains", leave=False)):
            is_noisy = number >= NUM_TRAINING and number % 2 == 1
            random = np.random.default_rng([2026, number])
            image, labels, affine = make_subject(template, random, is_noisy)
            ending = "Tr" if number < num_labelled else "Ts"
            _save(image, affine, unfinished / f"images{ending}" / f"{name}.nii.gz")
            _save(labels, affine, unfinished / f"labels{ending}" / f"{name}.nii.gz")
        description = _describe(names[:num_labelled], names[num_labelled:])
        splits = _split(names[:num_labelled])
        (unfinished / "splits_final.json").write_text(
            json.dumps(splits, indent=2), encoding="utf-8"
        )
        (unfinished / "dataset.json").write_text(
            json.dumps(description, indent=2), encoding="utf-8"
        )
        os.replace(unfinished, folder)
    return folder


def _save(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    import nibabel

    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)


def _describe(labelled: Sequence[str], new: Sequence[str]) -> dict[str, object]:
    """The content of dataset.json."""
    training = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in labelled
    ]
    return {
        **DESCRIPTION,
        "numTraining": len(labelled),
        "numTest": len(new),
        "training": training,
        "test": [f"./imagesTs/{name}.nii.gz" for name in new],
    }


def _split(labelled: Sequence[str]) -> list[dict[str, list[str]]]:
    """Five folds: the first validates on the partly noisy scans, each other on a quarter of the
    clean ones."""
    clean = list(labelled[:NUM_TRAINING])
    splits = [{"train": clean, "val": list(labelled[NUM_TRAINING:])}]
    for first in range(4):
        validation = clean[first::4]
        training = sorted(set(clean) - set(validation))
        splits.append({"train": training, "val": validation})
    return splits


def make_subject(
    template: Template, random: np.random.Generator, is_noisy: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One virtual subject: (x, y, z) float32 image and uint8 labels, and the (4, 4) affine of both.

    The image is rendered from the deformed template, not from the labels drawn, so that borders are
    uncertain even to a perfect network.
    """
    center_mm = _brain_center_mm(template)
    affine = np.diag([*[SPACING_MM] * 3, 1.0])
    affine[:3, 3] = center_mm - SPACING_MM * (np.array(SHAPE) - 1) / 2
    # A smooth deformation, then a turn and another size, all from voxels of the subject to those of
    # the template.
    displacement = _draw_deformation(24.0, 4.0, random) + _draw_deformation(9.0, 1.0, random)
    deformed_mm = _transform_points(affine, np.indices(SHAPE) + displacement)
    centered_mm = deformed_mm - center_mm.reshape(3, 1, 1, 1)
    angles = np.clip(random.normal(0, 4, size=3), -8, 8)
    turn = Rotation.from_euler("XYZ", angles, degrees=True).as_matrix()
    size = np.clip(1 + random.normal(0, 0.03) + random.normal(0, 0.02, size=3), 0.92, 1.08)
    turn_about_center = np.column_stack([turn @ np.diag(1 / size), center_mm])
    turned_mm = _transform_points(turn_about_center, centered_mm)
    voxels = _transform_points(np.linalg.inv(template.affine), turned_mm)
    t1 = ndimage.map_coordinates(template.t1, voxels, order=1, mode="nearest")
    sampled = [
        ndimage.map_coordinates(values, voxels, order=1, mode="nearest")
        for values in template.probabilities
    ]
    probabilities = np.stack(sampled).astype(np.float64)
    probabilities = (probabilities / probabilities.sum(0)).astype(np.float32)
    image = _render(t1, probabilities, random, is_noisy)
    labels = draw_labels(probabilities**2, 1.0, random)
    return image, labels, affine


def _brain_center_mm(template: Template) -> np.ndarray:
    """(3,) centre of the box around the brain."""
    is_brain = (template.probabilities[0] < 0.5).astype(np.uint8)
    (box,) = ndimage.find_objects(is_brain)
    center_voxels = [(part.start + part.stop - 1) / 2 for part in box]
    return (template.affine @ [*center_voxels, 1.0])[:3]


def _draw_deformation(
    sigma_mm: float, amplitude_mm: float, random: np.random.Generator
) -> np.ndarray:
    """(3, x, y, z) smooth random displacement in voxels of the subject."""
    fields = [gaussian_field(SHAPE, sigma_mm / SPACING_MM, random) for _ in range(3)]
    return amplitude_mm / SPACING_MM * np.stack(fields)


def _transform_points(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(3, ...) points under an affine map."""
    return np.einsum("ij,j...->i...", affine[:3, :3], points) + affine[:3, 3].reshape(3, 1, 1, 1)


def _render(
    t1: np.ndarray, probabilities: np.ndarray, random: np.random.Generator, is_noisy: bool
) -> np.ndarray:
    """Image of the subject: tissue contrast, texture, bias field and Rician noise vary."""
    tissue_means = np.array([0.0, 0.60, 0.86]) + np.array([0, 1, 1]) * random.normal(
        0, 0.03, size=3
    )
    tissue = np.einsum("k,k...->...", tissue_means, probabilities)
    texture = 0.03 * gaussian_field(t1.shape, 1.5, random) * (1 - probabilities[0])
    signal = np.clip(0.6 * tissue + 0.4 * t1 + texture, 0, None) ** random.uniform(0.85, 1.2)
    bias = np.exp(random.uniform(0.08, 0.18) * gaussian_field(t1.shape, 45.0 / SPACING_MM, random))
    noise = random.uniform(0.02, 0.045) * (NOISE if is_noisy else 1)
    real = signal * bias + noise * random.standard_normal(t1.shape)
    imaginary = noise * random.standard_normal(t1.shape)
    return (random.uniform(300, 900) * np.hypot(real, imaginary)).astype(np.float32)


def load_template() -> Template:
    """The 1 mm template of nilearn's own files, through a Gaussian filter for a coarser grid;
    nothing is downloaded.

    Raises:
        UserError: nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        how = "pip install 'nnunet_nacl[demo]', or give a task of the Decathlon with [[data]]"
        raise UserError(f"the demo's virtual brains need the package nilearn: {how}") from error
    images = [
        datasets.load_mni152_template(resolution=1),
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
    ]
    smoothed = []
    for image in images:
        volume = np.asarray(image.dataobj, np.float32)
        smoothed.append(ndimage.gaussian_filter(volume, SPACING_MM / 4, truncate=3))
    t1, grey_matter, white_matter = smoothed
    matter = np.clip([grey_matter, white_matter], 0, 1)
    matter = matter / np.maximum(matter.sum(0), 1)
    probabilities = np.stack([1 - matter.sum(0), *matter]).astype(np.float32)
    return Template(t1, probabilities, np.asarray(images[0].affine))


def gaussian_field(
    shape: Sequence[int], sigma_voxels: float, random: np.random.Generator
) -> np.ndarray:
    """Draws a stationary Gaussian field whose value at every voxel is exactly standard normal.

    White noise is filtered with a periodic Gaussian kernel and divided by the kernel's L2 norm.
    Voxels that are 2 ``sigma_voxels`` apart correlate by exp(-1).
    """
    noise = random.standard_normal(tuple(shape))
    impulse = np.zeros(shape)
    impulse.flat[0] = 1
    field = ndimage.gaussian_filter(noise, sigma_voxels, mode="wrap")
    kernel = ndimage.gaussian_filter(impulse, sigma_voxels, mode="wrap")
    return field / np.linalg.norm(kernel)


def draw_labels(
    probabilities: np.ndarray, sigma_voxels: float, random: np.random.Generator
) -> np.ndarray:
    """Draws a uint8 label map (*spatial) with labels in proportion to the given weights (C,
    *spatial) of each voxel.

    Gumbel-max: argmax_k (log p_k + g_k) has distribution p if the g_k are independent standard
    Gumbel. Each g_k is a smooth standard normal field turned into Gumbel values by the two
    distribution functions, so that neighbouring voxels agree while the distribution at each voxel
    stays p. A probability of zero is never drawn.
    """
    normal = np.stack(
        [gaussian_field(values.shape, sigma_voxels, random) for values in probabilities]
    )
    # log Phi(z) directly: 1 - Phi(z) would round to 0 in the upper tail, and the Gumbel value to
    # infinity.
    gumbel = -np.log(-special.log_ndtr(normal))
    with np.errstate(divide="ignore"):
        return (np.log(probabilities, dtype=np.float64) + gumbel).argmax(0).astype(np.uint8)
