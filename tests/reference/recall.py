"""Labels that miss less, by loops over voxels."""

from __future__ import annotations

import math

import numpy as np


def sensitive(probs, inside, limits, regions: bool) -> np.ndarray:
    """(structures, *spatial) whether a voxel is in each; ``inside`` says it of the delivered labels.

    ``limits`` are log-odds.
    """
    made = inside.copy()
    structures = probs if regions else probs[1:]
    for voxel in np.ndindex(probs.shape[1:]):
        p = [float(channel[voxel]) for channel in structures]
        for k, limit in enumerate(limits):
            free = not inside[k][voxel] if regions else not any(other[voxel] for other in inside)
            is_largest = regions or all(p[k] > q for q in p[:k]) and all(p[k] >= q for q in p[k:])
            odds = math.inf if p[k] == 1 else -math.inf if p[k] == 0 else math.log(p[k] / (1 - p[k]))
            made[k][voxel] |= free and is_largest and odds >= limit
    return made


def missed(truth, inside, valid) -> float:
    """Share of the true voxels that are missed; NaN where there is none."""
    n_true = sum(bool(truth[voxel] and valid[voxel]) for voxel in np.ndindex(truth.shape))
    found = sum(bool(truth[voxel] and valid[voxel] and inside[voxel]) for voxel in np.ndindex(truth.shape))
    return 1 - found / n_true if n_true else math.nan
