"""Draws calibration_masks.png: reliability of a perfectly calibrated predictor on each mask.

    python docs/figures/calibration_masks_figure.py

Prints the calibration error of every mask.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from nnunet_nacl.comparison.reliability_figure import draw_reliability
from nnunet_nacl.metrics import BinStats, count_masks, ece
from nnunet_nacl.metrics.calibration_error import nll_per_row
from nnunet_nacl.metrics.distance_masks import boundary_mask, dilated_mask

DOCS = Path(__file__).resolve().parents[1]


def perfect_case(seed: int, shape: tuple[int, ...] = (64, 64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Smooth class probabilities, and a truth drawn from those very probabilities, voxel by
    voxel."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, size) for size in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    background = np.zeros(shape)
    organ = 10 * (0.5 - radius)
    tilt = 3 * grid[0]
    noise = [gaussian_filter(rng.normal(size=shape), 4) * 14 for _ in range(3)]
    logits = np.stack([background, organ + tilt, organ - tilt]) + np.stack(noise)
    probs = torch.softmax(torch.as_tensor(logits), 0).numpy()
    truth = (rng.random(shape) > probs.cumsum(0)[:2]).sum(axis=0)
    return probs, truth


def simulate(cases: int = 8) -> dict[str, BinStats]:
    """Pooled sums of the masks, and of one that is drawn without looking at the truth."""
    pooled: dict[str, list[BinStats]] = {}
    for seed in range(cases):
        probs, truth = perfect_case(seed)
        independent = np.random.default_rng(1000 + seed).random(truth.shape) < 0.3
        extra = {
            "dilated": dilated_mask(truth, 2, (1, 1, 1)),
            "boundary": boundary_mask(truth, 2, (1, 1, 1)),
            "near": dilated_mask(probs.argmax(0), 2, (1, 1, 1)),
            "independent": independent,
        }
        for name, stats in count_masks(probs, truth, extra_masks=extra).items():
            pooled.setdefault(name, []).append(stats)
    return {name: BinStats.merge(parts) for name, parts in pooled.items()}


def main() -> None:
    stats = simulate()
    shown = {
        "all": "all",
        "independent": "a random 30 % of the voxels",
        "predicted": "predicted",
        "foreground": "foreground",
    }
    draw_reliability(
        {label: stats[name] for name, label in shown.items()},
        DOCS / "images" / "calibration_masks.png",
        title="A perfectly calibrated predictor, on four masks",
        subtitle=(
            "truth drawn voxel by voxel from the predicted probabilities; 8 simulated volumes of"
            " 64^3 voxels"
        ),
    )
    for name, sums in stats.items():
        print(
            f"{name}: ECE {ece(sums):.5g}, NLL {float(nll_per_row(sums)[0]):.5g}, {sums.n_voxels}"
            " voxels"
        )


if __name__ == "__main__":
    main()
