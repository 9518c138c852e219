"""One virtual subject: a randomly deformed template, its image, its true label probabilities and its labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from nnunet_nacl.demo.brain_template import Template
from nnunet_nacl.demo.random_fields import draw_labels, exponential_displacement, gaussian_field

SPACING_MM = 3.5
SHAPE = (48, 56, 48)
"""Grid of every subject, in voxels along x, y, z; the largest brains touch its border."""

LABEL_SMOOTHNESS_VOXELS = 1.0
"""Spatial correlation of the labels' randomness."""


@dataclass(frozen=True)
class VirtualSubject:
    """What is known of a virtual subject; arrays are (x, y, z).

    Attributes:
        image: float32 T1-weighted magnitude image, arbitrary units.
        labels: uint8, values as in `nnunet_nacl.demo.brain_template.LABELS`.
        probabilities: (4, x, y, z) float32; the probability with which each label was drawn.
        affine: (4, 4) voxel index to millimetres.
    """

    image: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    affine: np.ndarray


def make_subject(
    template: Template, random: np.random.Generator, shape: tuple[int, int, int] = SHAPE, spacing_mm: float = SPACING_MM
) -> VirtualSubject:
    """Makes one virtual subject.

    The image is rendered from the deformed template, not from the labels drawn, so that the stored probabilities are
    all that even a perfect network could know about the labels.

    Args:
        template: Where anatomy comes from, see `load_template`.
        random: Source of randomness; the same state gives the same subject.
        shape: Grid of the subject in voxels.
        spacing_mm: Edge length of its voxels.
    """
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    center_mm = (template.affine @ [*(_brain_center(template)), 1.0])[:3]
    affine[:3, 3] = center_mm - spacing_mm * (np.array(shape) - 1) / 2
    where = _sampling_positions(template, affine, center_mm, shape, spacing_mm, random)

    probabilities = np.stack(
        [ndimage.map_coordinates(one, where, order=1, mode="nearest") for one in template.probabilities]
    ).astype(np.float64)
    probabilities = (probabilities / probabilities.sum(0)).astype(np.float32)
    t1 = ndimage.map_coordinates(template.t1, where, order=1, mode="nearest")
    return VirtualSubject(
        image=_render(t1, probabilities, random, spacing_mm),
        labels=draw_labels(probabilities, LABEL_SMOOTHNESS_VOXELS, random),
        probabilities=probabilities,
        affine=affine,
    )


def _brain_center(template: Template) -> np.ndarray:
    (box,) = ndimage.find_objects((template.probabilities[0] < 0.5).astype(np.uint8))
    return np.array([(part.start + part.stop - 1) / 2 for part in box])


def _sampling_positions(template, affine, center_mm, shape, spacing_mm, random) -> np.ndarray:
    """Template voxel positions (3, *shape) that the subject's voxels take their values from."""
    velocity = sum(
        amplitude_mm / spacing_mm * np.stack([gaussian_field(shape, sigma_mm / spacing_mm, random) for _ in range(3)])
        for sigma_mm, amplitude_mm in ((24.0, 4.0), (9.0, 1.0))
    )
    voxels = np.indices(shape, dtype=np.float64) + exponential_displacement(velocity)
    millimetres = np.einsum("ij,j...->i...", affine[:3, :3], voxels) + affine[:3, 3].reshape(3, 1, 1, 1)

    turn = Rotation.from_euler("XYZ", np.clip(random.normal(0, 4, size=3), -8, 8), degrees=True).as_matrix()
    size = np.clip(1 + random.normal(0, 0.03) + random.normal(0, 0.02, size=3), 0.92, 1.08)
    linear = turn @ np.diag(1 / size)
    centered = millimetres - center_mm.reshape(3, 1, 1, 1)
    millimetres = np.einsum("ij,j...->i...", linear, centered) + center_mm.reshape(3, 1, 1, 1)

    to_voxels = np.linalg.inv(template.affine)
    return np.einsum("ij,j...->i...", to_voxels[:3, :3], millimetres) + to_voxels[:3, 3].reshape(3, 1, 1, 1)


def _render(t1: np.ndarray, probabilities: np.ndarray, random: np.random.Generator, spacing_mm: float) -> np.ndarray:
    """Image of the subject: tissue contrast, texture, bias field and Rician noise vary."""
    tissue_means = np.array([0.0, 0.22, 0.60, 0.86]) + np.array([0, 1, 1, 1]) * random.normal(0, 0.03, size=4)
    tissue = np.einsum("k,k...->...", tissue_means, probabilities)
    texture = 0.03 * gaussian_field(t1.shape, 1.5, random) * (1 - probabilities[0])
    signal = np.clip(0.6 * tissue + 0.4 * t1 + texture, 0, None) ** random.uniform(0.85, 1.2)
    bias = np.exp(random.uniform(0.08, 0.18) * gaussian_field(t1.shape, 45.0 / spacing_mm, random))
    noise = random.uniform(0.02, 0.045)
    real = signal * bias + noise * random.standard_normal(t1.shape)
    imaginary = noise * random.standard_normal(t1.shape)
    return (random.uniform(300, 900) * np.hypot(real, imaginary)).astype(np.float32)
