"""Corrupts MR images in the ways in which scans of other sites and days differ, at three severities each.

    python docs/results/corruptions.py IMAGES OUT

writes OUT/KIND_SEVERITY/ with every image of the folder IMAGES, for each kind below and the severities 1 to 3. Labels
stay as they are: no corruption moves anything.
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter, zoom
from tqdm import tqdm

SEVERITIES = (1, 2, 3)


def noise(image: np.ndarray, spacing: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    """Rician noise whose standard deviation is 4, 8 or 16 % of the intensity range."""
    low, high = _range(image)
    deviation = (0.04, 0.08, 0.16)[severity - 1] * (high - low)
    real = image - low + generator.normal(0, deviation, image.shape)
    imaginary = generator.normal(0, deviation, image.shape)
    return np.hypot(real, imaginary) + low


def bias_field(image: np.ndarray, spacing: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    """A smooth factor exp(a f), f a random polynomial of degree 3 between -1 and 1, a = 0.3, 0.6 or 0.9."""
    axes = np.meshgrid(*(np.linspace(-1, 1, size) for size in image.shape), indexing="ij")
    field = np.zeros(image.shape)
    for powers in np.ndindex(4, 4, 4):
        if 0 < sum(powers) <= 3:
            field += generator.normal() * np.prod([axis**power for axis, power in zip(axes, powers)], axis=0)
    field /= np.abs(field).max()
    low, _ = _range(image)
    return (image - low) * np.exp((0.3, 0.6, 0.9)[severity - 1] * field) + low


def blur(image: np.ndarray, spacing: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    """Gaussian blur of 0.6, 1.0 or 1.5 mm."""
    return gaussian_filter(image, (0.6, 1.0, 1.5)[severity - 1] / spacing)


def low_resolution(image: np.ndarray, spacing: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    """Voxels 1.5, 2 or 3 times as long along each axis, put back on the old grid by linear interpolation."""
    factor = (1.5, 2.0, 3.0)[severity - 1]
    small = zoom(image, 1 / factor, order=1, grid_mode=True, mode="nearest")
    return zoom(small, np.array(image.shape) / small.shape, order=1, grid_mode=True, mode="nearest")


def contrast(image: np.ndarray, spacing: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    """Gamma of 1.3, 1.7 or 2.3, or its inverse: bright tissue or dark tissue loses contrast."""
    low, high = _range(image)
    gamma = (1.3, 1.7, 2.3)[severity - 1]
    scaled = np.clip((image - low) / (high - low), 0, 1)
    return scaled ** (gamma if generator.random() < 0.5 else 1 / gamma) * (high - low) + low


KINDS: dict[str, Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": noise,
    "bias_field": bias_field,
    "blur": blur,
    "low_resolution": low_resolution,
    "contrast": contrast,
}


def _range(image: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(image, (0.5, 99.5))
    return float(low), float(max(high, low + 1e-6))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    paths = sorted(args.images.glob("*.nii.gz"))
    if not paths:
        parser.error(f"{args.images} holds no *.nii.gz")
    for path in tqdm(paths, desc="corrupt", unit="case"):
        image = sitk.ReadImage(str(path))
        array = sitk.GetArrayFromImage(image).astype(np.float64)
        spacing = np.array(image.GetSpacing()[::-1])
        for kind, function in KINDS.items():
            for severity in SEVERITIES:
                # the same noise and field for a case at all severities, whatever the order of the cases
                generator = np.random.default_rng(zlib.crc32(f"{path.name} {kind}".encode()))
                corrupted = sitk.GetImageFromArray(function(array, spacing, severity, generator).astype(np.float32))
                corrupted.CopyInformation(image)
                target = args.out / f"{kind}_{severity}" / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_name(f".tmp_{target.name}")
                sitk.WriteImage(corrupted, str(temporary))
                os.replace(temporary, target)


if __name__ == "__main__":
    main()
