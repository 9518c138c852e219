"""The ICBM152 template with its tissue probabilities, as the package nilearn ships it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_nacl.errors import UserError

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
