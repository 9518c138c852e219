"""One virtual subject: a randomly deformed template, its image, its true label probabilities and its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, special
from scipy.spatial.transform import Rotation

from nnunet_nacl.errors import UserError

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
        labels: uint8, values as in `nnunet_nacl.demo.virtual_subject.LABELS`.
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
    (box,) = ndimage.find_objects((template.probabilities[0] < 0.5).astype(np.uint8))  # of the brain
    center_mm = (template.affine @ [*((part.start + part.stop - 1) / 2 for part in box), 1.0])[:3]
    affine[:3, 3] = center_mm - spacing_mm * (np.array(shape) - 1) / 2
    where = _sampling_positions(template, affine, center_mm, shape, spacing_mm, random)

    t1, *sampled = (
        ndimage.map_coordinates(one, where, order=1, mode="nearest") for one in (template.t1, *template.probabilities)
    )
    probabilities = np.stack(sampled).astype(np.float64)
    probabilities = (probabilities / probabilities.sum(0)).astype(np.float32)
    return VirtualSubject(
        image=_render(t1, probabilities, random, spacing_mm),
        labels=draw_labels(probabilities, LABEL_SMOOTHNESS_VOXELS, random),
        probabilities=probabilities,
        affine=affine,
    )


def _sampling_positions(template, affine, center_mm, shape, spacing_mm, random) -> np.ndarray:
    """Template voxel positions (3, *shape) that the subject's voxels take their values from."""
    velocity = sum(
        amplitude_mm / spacing_mm * np.stack([gaussian_field(shape, sigma_mm / spacing_mm, random) for _ in range(3)])
        for sigma_mm, amplitude_mm in ((24.0, 4.0), (9.0, 1.0))
    )
    millimetres = _applied(affine, np.indices(shape, dtype=np.float64) + exponential_displacement(velocity))

    turn = Rotation.from_euler("XYZ", np.clip(random.normal(0, 4, size=3), -8, 8), degrees=True).as_matrix()
    size = np.clip(1 + random.normal(0, 0.03) + random.normal(0, 0.02, size=3), 0.92, 1.08)
    centered = millimetres - center_mm.reshape(3, 1, 1, 1)
    about_center = np.column_stack([turn @ np.diag(1 / size), center_mm])
    return _applied(np.linalg.inv(template.affine), _applied(about_center, centered))


def _applied(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.einsum("ij,j...->i...", affine[:3, :3], points) + affine[:3, 3].reshape(3, 1, 1, 1)


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


LABELS = ("background", "CSF", "GM", "WM")


@dataclass(frozen=True)
class Template:
    """Head template on one grid.

    Attributes:
        t1: (x, y, z) T1-weighted intensity, 0 to 1, without skull.
        probabilities: (4, x, y, z) float32 probabilities of `LABELS`, summing to 1.
        affine: (4, 4) voxel index to millimetres.
    """

    t1: np.ndarray
    probabilities: np.ndarray
    affine: np.ndarray


def tissue_probabilities(mask: np.ndarray, grey_matter: np.ndarray, white_matter: np.ndarray) -> np.ndarray:
    """Probabilities of background, CSF, grey and white matter.

    CSF is what the brain mask leaves after grey and white matter; background is what the three leave.

    Args:
        mask: Brain mask, 0 to 1.
        grey_matter: Its probability, 0 to 1.
        white_matter: Its probability, 0 to 1.

    Returns:
        (4, *spatial) float32, summing to 1 at each voxel.
    """
    grey_matter, white_matter, mask = (np.clip(one, 0, 1) for one in (grey_matter, white_matter, mask))
    excess = np.maximum(grey_matter + white_matter, 1)
    grey_matter, white_matter = grey_matter / excess, white_matter / excess
    matter = grey_matter + white_matter
    csf = np.maximum(mask - matter, 0)
    background = np.maximum(1 - matter - csf, 0)
    probabilities = np.stack([background, csf, grey_matter, white_matter]).astype(np.float64)
    return (probabilities / probabilities.sum(0)).astype(np.float32)


def load_template(antialias_mm: float = 0.0) -> Template:
    """Loads the 1 mm template from nilearn's own files; nothing is downloaded.

    Args:
        antialias_mm: Standard deviation of a Gaussian filter, for sampling on a coarser grid afterwards.

    Raises:
        UserError: If nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise UserError(
            "the demo's virtual brains need the package nilearn: pip install 'nnunet_nacl[demo]', "
            "or give a Decathlon task with --data or --download"
        ) from error
    image = datasets.load_mni152_template(resolution=1)
    mask = datasets.load_mni152_brain_mask(resolution=1)
    matter = datasets.load_mni152_gm_template(resolution=1), datasets.load_mni152_wm_template(resolution=1)
    maps = [np.asarray(one.dataobj).astype(np.float32) for one in (image, mask, *matter)]
    if antialias_mm > 0:
        maps = [ndimage.gaussian_filter(one, antialias_mm, truncate=3) for one in maps]
    return Template(maps[0], tissue_probabilities(*maps[1:]), np.asarray(image.affine))


def gaussian_field(shape: Sequence[int], sigma_voxels: float, random: np.random.Generator) -> np.ndarray:
    """Draws a stationary Gaussian field whose value at every voxel is exactly standard normal.

    White noise is filtered with a periodic Gaussian kernel of unit L2 norm, so that no voxel, at the border
    neither, has another variance than its neighbours: what is drawn from the field has exact marginals.

    Args:
        shape: Spatial shape, any number of axes.
        sigma_voxels: Standard deviation of the filter; 0 gives white noise. Voxels that are 2 sigma apart
            correlate by exp(-1).
        random: Source of randomness.

    Returns:
        float64 array of that shape.
    """
    field = random.standard_normal(tuple(shape))
    if sigma_voxels == 0:
        return field
    for axis, size in enumerate(shape):
        distance = np.minimum(np.arange(size), size - np.arange(size))
        kernel = np.exp(-0.5 * (distance / sigma_voxels) ** 2)
        transfer = np.fft.rfft(kernel / np.sqrt(np.sum(kernel**2))).reshape(-1, *[1] * (field.ndim - axis - 1))
        field = np.fft.irfft(np.fft.rfft(field, axis=axis) * transfer, n=size, axis=axis)
    return field


def draw_labels(probabilities: np.ndarray, sigma_voxels: float, random: np.random.Generator) -> np.ndarray:
    """Draws a label map whose label at each voxel has exactly the given probability.

    Gumbel-max: argmax_k (log p_k + g_k) has distribution p if the g_k are independent standard Gumbel. Each g_k is a
    smooth standard normal field turned into Gumbel values by the two distribution functions, so that neighbouring
    voxels agree (the labels form patches, as an annotator's would) while the distribution at each voxel stays p.

    Args:
        probabilities: (C, *spatial), each voxel summing to 1; zeros are allowed and never drawn.
        sigma_voxels: Smoothness of the randomness, see `gaussian_field`.
        random: Source of randomness.

    Returns:
        uint8 label map (*spatial).
    """
    normal = np.stack([gaussian_field(one.shape, sigma_voxels, random) for one in probabilities])
    # log Phi(z) directly: 1 - Phi(z) would round to 0 in the upper tail, and the Gumbel value to infinity.
    gumbel = -np.log(-special.log_ndtr(normal))
    with np.errstate(divide="ignore"):
        return (np.log(probabilities, dtype=np.float64) + gumbel).argmax(0).astype(np.uint8)


def exponential_displacement(velocity: np.ndarray, squarings: int = 4) -> np.ndarray:
    """Turns a smooth velocity field into an invertible displacement: the exponential of the velocity.

    The velocity is halved `squarings` times and the small displacement that it then is composed with itself as often
    (scaling and squaring; Arsigny et al. 2006), which keeps the map one to one.

    Args:
        velocity: (axes, *spatial) stationary velocity in voxels.
        squarings: Number of halvings.

    Returns:
        (axes, *spatial) displacement in voxels: where each voxel takes its value from, less its own position.
    """
    displacement = velocity / 2**squarings
    identity = np.indices(velocity.shape[1:], dtype=np.float64)
    for _ in range(squarings):
        where = identity + displacement
        moved = [ndimage.map_coordinates(axis, where, order=1, mode="grid-wrap") for axis in displacement]
        displacement = displacement + np.stack(moved)
    return displacement
