"""Mean uncertainty over the predicted foreground: the one number a case that lists and orders of cases go by."""

from __future__ import annotations

import math

import numpy as np

from nnunet_nacl.metrics.voxel_uncertainty import confidence, normalised_entropy

__all__ = ["foreground_mean", "foreground_uncertainty"]


def foreground_mean(values: np.ndarray | None, foreground: np.ndarray) -> float:
    """Mean of a map over the voxels of the predicted structures; NaN if nothing was predicted or there is no map.

    Args:
        values: (*spatial) map.
        foreground: (*spatial) boolean, where any structure was predicted.
    """
    return math.nan if values is None or not foreground.any() else float(values[foreground].mean(dtype=np.float64))


def foreground_uncertainty(probs: np.ndarray, foreground: np.ndarray, *, regions: bool = False) -> dict[str, float]:
    """The means of normalised ``entropy`` and of ``confidence`` over the predicted foreground.

    Args:
        probs: (K, *spatial) class or (R, *spatial) region probabilities.
        foreground: (*spatial) boolean, where any structure was predicted.
        regions: Whether these are sigmoid regions: the least certain one stands for a voxel.

    Returns:
        Two numbers in [0, 1]; NaN if nothing was predicted.
    """
    inside = probs[:, foreground]  # most voxels are background, and of them nothing is asked
    everywhere = np.ones(inside.shape[1], dtype=bool)
    maps = {"entropy": normalised_entropy, "confidence": confidence}
    return {
        name: foreground_mean(of(inside, regions=regions) if inside.size else None, everywhere)
        for name, of in maps.items()
    }
