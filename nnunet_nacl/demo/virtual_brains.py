"""Makes virtual brains as a Decathlon task: a deformed template, and labels drawn by known probabilities."""

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
LABELS = ("background", "CSF", "GM", "WM")
SPACING_MM = 3.5
HURRIED = 0.5, 10.0
"""Share of the scans made in a hurry, and how many times their noise is that of the others: some should be bad."""
BAD = ("GM=0.64", "WM=0.64")
"""Dice below which a brain is bad: of the hurried, few are not. That of CSF is low even where all is known."""
SHAPE = (48, 56, 48)
"""Grid of every subject, in voxels along x, y, z; the largest brains touch its border."""

DESCRIPTION = {
    "name": "VirtualBrains",
    "description": "Virtual brains made from the ICBM152 template: NOT patients, nor volunteers. Each is the same "
    "average brain, deformed, re-coloured and made noisy at random. CSF is the brain mask less grey and white matter. "
    "The label of each voxel was drawn with exactly the probability in probabilitiesTr (npz: class, z, y, x), on which "
    "the image does not depend. About half are scanned in a hurry, with more noise. They say nothing about how a "
    "network performs on people.",
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
"""(x, y, z) T1-weighted intensity, 0 to 1; (4, x, y, z) probabilities of ``LABELS``; (4, 4) voxel to millimetres."""


def write_virtual_brains(folder: Path, num_training: int = 36, num_test: int = 4) -> Path:
    """Writes virtual subjects in the Decathlon's format; the folder, which is returned, appears when it is complete.

    Files are made alike each time; a subject does not depend on how many there are. Of the folds in splits_final.json
    the first validates on the last five ninths of the training subjects, 20 of 36, of which more than nine are hurried:
    enough for intervals and flags. The other four share the rest. UserError where nilearn is not installed.
    """
    import nibabel

    template = load_template()
    names = [f"brain_{number + 1:03d}" for number in range(num_training + num_test)]
    with temporary_folder(folder.parent) as unfinished:
        for part in ("images", "labels", "probabilities"):
            for kind in ("Tr", "Ts"):
                (unfinished / f"{part}{kind}").mkdir()
        for number, name in enumerate(tqdm(names, unit="brain", leave=False)):
            kind, random = "Tr" if number < num_training else "Ts", np.random.default_rng([2026, number])
            image, labels, probabilities, affine = make_subject(template, random)
            for part, values in (("images", image), ("labels", labels)):
                written = nibabel.Nifti1Image(values, affine)
                written.header.set_xyzt_units("mm")
                nibabel.save(written, unfinished / f"{part}{kind}" / f"{name}.nii.gz")
            path = unfinished / f"probabilities{kind}" / f"{name}.npz"
            np.savez_compressed(path, probabilities=np.ascontiguousarray(probabilities.transpose(0, 3, 2, 1)))
        images = [{part: f"./{part}sTr/{name}.nii.gz" for part in ("image", "label")} for name in names[:num_training]]
        tests = [f"./imagesTs/{name}.nii.gz" for name in names[num_training:]]
        files = {"numTraining": num_training, "numTest": num_test, "training": images, "test": tests}
        first, rest = names[num_training * 4 // 9 : num_training], names[: num_training * 4 // 9]
        validated = [first, *(rest[i::4] for i in range(4))]
        splits = [{"train": sorted({*first, *rest} - {*val}), "val": val} for val in validated]
        (unfinished / "splits_final.json").write_text(json.dumps(splits, indent=2), encoding="utf-8")
        (unfinished / "dataset.json").write_text(json.dumps(DESCRIPTION | files, indent=2), encoding="utf-8")
        os.replace(unfinished, folder)
    return folder


def make_subject(template: Template, random: np.random.Generator) -> tuple[np.ndarray, ...]:
    """One virtual subject: (x, y, z) float32 image, uint8 labels, (4, x, y, z) float32 probabilities, (4, 4) affine.

    The image is rendered from the deformed template, not from the labels drawn, so that the probabilities are all that
    even a perfect network could know about the labels.
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
    image = _render(t1, probabilities, random)
    return image, draw_labels(probabilities, 1.0, random), probabilities, affine


def _applied(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.einsum("ij,j...->i...", affine[:3, :3], points) + affine[:3, 3].reshape(3, 1, 1, 1)


def _render(t1: np.ndarray, probabilities: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Image of the subject: tissue contrast, texture, bias field and Rician noise vary."""
    tissue_means = np.array([0.0, 0.22, 0.60, 0.86]) + np.array([0, 1, 1, 1]) * random.normal(0, 0.03, size=4)
    tissue = np.einsum("k,k...->...", tissue_means, probabilities)
    texture = 0.03 * gaussian_field(t1.shape, 1.5, random) * (1 - probabilities[0])
    signal = np.clip(0.6 * tissue + 0.4 * t1 + texture, 0, None) ** random.uniform(0.85, 1.2)
    bias = np.exp(random.uniform(0.08, 0.18) * gaussian_field(t1.shape, 45.0 / SPACING_MM, random))
    share_hurried, times = HURRIED
    noise = random.uniform(0.02, 0.045) * (times if random.random() < share_hurried else 1)
    real = signal * bias + noise * random.standard_normal(t1.shape)
    imaginary = noise * random.standard_normal(t1.shape)
    return (random.uniform(300, 900) * np.hypot(real, imaginary)).astype(np.float32)


def load_template() -> Template:
    """The 1 mm template of nilearn's own files, through a Gaussian filter for a coarser grid; nothing is downloaded.

    CSF is what the brain mask leaves after grey and white matter; background is what the three leave. UserError where
    nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        how = "pip install 'nnunet_nacl[demo]', or give a task of the Decathlon with --data"
        raise UserError(f"the demo's virtual brains need the package nilearn: {how}") from error
    kinds = ("template", "brain_mask", "gm_template", "wm_template")
    images = [getattr(datasets, f"load_mni152_{kind}")(resolution=1) for kind in kinds]
    volumes = (np.float32(image.dataobj) for image in images)
    t1, mask, *matter = (ndimage.gaussian_filter(volume, SPACING_MM / 4, truncate=3) for volume in volumes)
    matter = np.clip(matter, 0, 1)
    matter = matter / np.maximum(matter.sum(0), 1)
    csf = np.maximum(np.clip(mask, 0, 1) - matter.sum(0), 0)
    background = np.maximum(1 - matter.sum(0) - csf, 0)
    probabilities = np.stack([background, csf, *matter]).astype(np.float64)
    return t1, (probabilities / probabilities.sum(0)).astype(np.float32), np.asarray(images[0].affine)


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
    """Draws a uint8 label map (*spatial) whose label at each voxel has exactly the given probability (C, *spatial).

    Gumbel-max: argmax_k (log p_k + g_k) has distribution p if the g_k are independent standard Gumbel. Each g_k is a
    smooth standard normal field turned into Gumbel values by the two distribution functions, so that neighbouring
    voxels agree while the distribution at each voxel stays p. A probability of zero is never drawn.
    """
    normal = np.stack([gaussian_field(values.shape, sigma_voxels, random) for values in probabilities])
    # log Phi(z) directly: 1 - Phi(z) would round to 0 in the upper tail, and the Gumbel value to infinity.
    gumbel = -np.log(-special.log_ndtr(normal))
    with np.errstate(divide="ignore"):
        return (np.log(probabilities, dtype=np.float64) + gumbel).argmax(0).astype(np.uint8)
