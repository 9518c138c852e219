"""Makes virtual brains as a Decathlon task: a deformed template, clean and noisy images, and drawn labels."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage, special
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from nnunet_nacl.errors import UserError
from nnunet_nacl.files import temporary_folder

TASK_NAME = "Task90_VirtualBrains"
LABELS = ("background", "grey matter", "white matter")
SPACING_MM = 3.5
NUM_TRAINING, NUM_VALIDATION, NUM_TEST = 16, 40, 8
NOISE = 15.0
"""How many times the noise of a noisy scan is that of a clean one: no network that saw clean scans alone can cope."""
BAD = ("0.65",)
"""Dice below which a brain is bad: that of clean scans is well above it, that of noisy ones well below."""
SHAPE = (48, 56, 48)
"""Grid of every subject, in voxels along x, y, z; the largest brains touch its border."""

DESCRIPTION = {
    "name": "VirtualBrains",
    "description": "Virtual brains made from the ICBM152 template: NOT patients, nor volunteers. Each is the same "
    "average brain, deformed, re-coloured and made noisy at random. Every second scan that no network is trained on is "
    "very noisy. They say nothing about how a network performs on people.",
    "reference": "ICBM 2009a nonlinear symmetric atlas, McConnell Brain Imaging Centre, McGill University, as shipped "
    "with the Python package nilearn; Fonov et al., NeuroImage 54(1), 2011",
    "licence": "Template: Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological "
    "Institute, McGill University. Permission to use, copy, modify, and distribute for any purpose and without fee is "
    "granted by its authors, provided that this notice appears in all copies.",
    "tensorImageSize": "3D",
    "modality": {"0": "MRI"},
    "labels": {str(value): name for value, name in enumerate(LABELS)},
}

Template = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(x, y, z) T1-weighted intensity, 0 to 1; (3, x, y, z) probabilities of ``LABELS``; (4, 4) voxel to millimetres."""


def write_virtual_brains(folder: Path) -> Path:
    """Writes virtual subjects in the Decathlon's format; the folder, which is returned, appears when it is complete.

    Files are made alike each time. Of the folds in splits_final.json the first trains on ``NUM_TRAINING`` clean scans
    and validates on ``NUM_VALIDATION``, every second of them noisy; the others validate on the clean ones. New scans
    are in imagesTs, the noisy ones second. UserError where nilearn is not installed.
    """
    import nibabel

    template, num = load_template(), NUM_TRAINING + NUM_VALIDATION
    names = [f"brain_{number + 1:03d}" for number in range(num + NUM_TEST)]
    with temporary_folder(folder.parent) as unfinished:
        for part in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (unfinished / part).mkdir()
        for number, name in enumerate(tqdm(names, desc="virtual brains", leave=False)):
            is_noisy = number >= NUM_TRAINING and number % 2 == 1
            image, labels, affine = make_subject(template, np.random.default_rng([2026, number]), is_noisy)
            for part, values in (("images", image), ("labels", labels)):
                written = nibabel.Nifti1Image(values, affine)
                written.header.set_xyzt_units("mm")
                nibabel.save(written, unfinished / f"{part}{'Tr' if number < num else 'Ts'}" / f"{name}.nii.gz")
        images = [{part: f"./{part}sTr/{name}.nii.gz" for part in ("image", "label")} for name in names[:num]]
        tests = [f"./imagesTs/{name}.nii.gz" for name in names[num:]]
        files = {"numTraining": num, "numTest": NUM_TEST, "training": images, "test": tests}
        clean = names[:NUM_TRAINING]
        splits = [{"train": clean, "val": names[NUM_TRAINING:num]}]
        splits += [{"train": sorted({*clean} - {*clean[i::4]}), "val": clean[i::4]} for i in range(4)]
        (unfinished / "splits_final.json").write_text(json.dumps(splits, indent=2), encoding="utf-8")
        (unfinished / "dataset.json").write_text(json.dumps(DESCRIPTION | files, indent=2), encoding="utf-8")
        os.replace(unfinished, folder)
    return folder


def make_subject(template: Template, random: np.random.Generator, is_noisy: bool) -> tuple[np.ndarray, ...]:
    """One virtual subject: (x, y, z) float32 image, uint8 labels, (4, 4) affine.

    The image is rendered from the deformed template, not from the labels drawn, so that borders are uncertain even to
    a perfect network.
    """
    t1, probabilities, template_affine = template
    affine = np.diag([*[SPACING_MM] * 3, 1.0])
    (box,) = ndimage.find_objects((probabilities[0] < 0.5).astype(np.uint8))  # of the brain
    center_mm = (template_affine @ [*((part.start + part.stop - 1) / 2 for part in box), 1.0])[:3]
    affine[:3, 3] = center_mm - SPACING_MM * (np.array(SHAPE) - 1) / 2
    # a smooth deformation, then a turn and another size, all from voxels of the subject to those of the template
    displacement = sum(
        amplitude_mm / SPACING_MM * np.stack([gaussian_field(SHAPE, sigma_mm / SPACING_MM, random) for _ in range(3)])
        for sigma_mm, amplitude_mm in ((24.0, 4.0), (9.0, 1.0))
    )
    centered_mm = _applied(affine, np.indices(SHAPE) + displacement) - center_mm.reshape(3, 1, 1, 1)
    turn = Rotation.from_euler("XYZ", np.clip(random.normal(0, 4, size=3), -8, 8), degrees=True).as_matrix()
    size = np.clip(1 + random.normal(0, 0.03) + random.normal(0, 0.02, size=3), 0.92, 1.08)
    about_center = np.column_stack([turn @ np.diag(1 / size), center_mm])
    where = _applied(np.linalg.inv(template_affine), _applied(about_center, centered_mm))
    t1, *sampled = (ndimage.map_coordinates(v, where, order=1, mode="nearest") for v in (t1, *probabilities))
    probabilities = np.stack(sampled).astype(np.float64)
    probabilities = (probabilities / probabilities.sum(0)).astype(np.float32)
    return _render(t1, probabilities, random, is_noisy), draw_labels(probabilities**2, 1.0, random), affine


def _applied(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.einsum("ij,j...->i...", affine[:3, :3], points) + affine[:3, 3].reshape(3, 1, 1, 1)


def _render(t1: np.ndarray, probabilities: np.ndarray, random: np.random.Generator, is_noisy: bool) -> np.ndarray:
    """Image of the subject: tissue contrast, texture, bias field and Rician noise vary."""
    tissue_means = np.array([0.0, 0.60, 0.86]) + np.array([0, 1, 1]) * random.normal(0, 0.03, size=3)
    tissue = np.einsum("k,k...->...", tissue_means, probabilities)
    texture = 0.03 * gaussian_field(t1.shape, 1.5, random) * (1 - probabilities[0])
    signal = np.clip(0.6 * tissue + 0.4 * t1 + texture, 0, None) ** random.uniform(0.85, 1.2)
    bias = np.exp(random.uniform(0.08, 0.18) * gaussian_field(t1.shape, 45.0 / SPACING_MM, random))
    noise = random.uniform(0.02, 0.045) * (NOISE if is_noisy else 1)
    real = signal * bias + noise * random.standard_normal(t1.shape)
    imaginary = noise * random.standard_normal(t1.shape)
    return (random.uniform(300, 900) * np.hypot(real, imaginary)).astype(np.float32)


def load_template() -> Template:
    """The 1 mm template of nilearn's own files, through a Gaussian filter for a coarser grid; nothing is downloaded.

    UserError where nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        how = "pip install 'nnunet_nacl[demo]', or give a task of the Decathlon with --data"
        raise UserError(f"the demo's virtual brains need the package nilearn: {how}") from error
    images = [getattr(datasets, f"load_mni152_{kind}template")(resolution=1) for kind in ("", "gm_", "wm_")]
    volumes = (np.float32(image.dataobj) for image in images)
    t1, *matter = (ndimage.gaussian_filter(volume, SPACING_MM / 4, truncate=3) for volume in volumes)
    matter = np.clip(matter, 0, 1)
    matter = matter / np.maximum(matter.sum(0), 1)
    probabilities = np.stack([1 - matter.sum(0), *matter]).astype(np.float32)
    return t1, probabilities, np.asarray(images[0].affine)


def gaussian_field(shape: Sequence[int], sigma_voxels: float, random: np.random.Generator) -> np.ndarray:
    """Draws a stationary Gaussian field whose value at every voxel is exactly standard normal.

    White noise is filtered with a periodic Gaussian kernel and divided by the kernel's L2 norm. Voxels that are 2
    ``sigma_voxels`` apart correlate by exp(-1).
    """
    noise, impulse = random.standard_normal(tuple(shape)), np.zeros(shape)
    impulse.flat[0] = 1
    field, kernel = (ndimage.gaussian_filter(values, sigma_voxels, mode="wrap") for values in (noise, impulse))
    return field / np.linalg.norm(kernel)


def draw_labels(probabilities: np.ndarray, sigma_voxels: float, random: np.random.Generator) -> np.ndarray:
    """Draws a uint8 label map (*spatial) with labels in proportion to the given weights (C, *spatial) of each voxel.

    Gumbel-max: argmax_k (log p_k + g_k) has distribution p if the g_k are independent standard Gumbel. Each g_k is a
    smooth standard normal field turned into Gumbel values by the two distribution functions, so that neighbouring
    voxels agree while the distribution at each voxel stays p. A probability of zero is never drawn.
    """
    normal = np.stack([gaussian_field(values.shape, sigma_voxels, random) for values in probabilities])
    # log Phi(z) directly: 1 - Phi(z) would round to 0 in the upper tail, and the Gumbel value to infinity.
    gumbel = -np.log(-special.log_ndtr(normal))
    with np.errstate(divide="ignore"):
        return (np.log(probabilities, dtype=np.float64) + gumbel).argmax(0).astype(np.uint8)
