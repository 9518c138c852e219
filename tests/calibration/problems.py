"""Voxels whose best map is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from nnunet_nacl.calibration.log_odds_map import LogOddsMap, map_from_tables
from nnunet_nacl.calibration.voxels import Voxels


def identity(num: int, regions: bool = False) -> LogOddsMap:
    """The map of ``num`` structures that changes nothing."""
    return map_from_tables(np.ones((1, num)), np.zeros((1, num)), regions)


def chosen(odds: torch.Tensor, regions: bool) -> torch.Tensor:
    """The label of each voxel by its log-odds: the lowest of the most probable classes, or whether
    in each region."""
    return (odds > 0).long() if regions else torch.cat([torch.zeros_like(odds[:1]), odds]).argmax(0)


def drawn_from(
    calibration: LogOddsMap, cases: int = 6, voxels: int = 4000, seed: int = 0
) -> list[Voxels]:
    """Truths drawn from what the map says, so that it is the best one up to chance."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(cases):
        odds = torch.from_numpy(rng.normal(-0.5, 2.0, (calibration.num_structures, voxels)))
        label = chosen(odds, calibration.regions)
        probs = calibration.to_probabilities(odds, label).numpy()
        if calibration.regions:
            target = rng.random(probs.shape) < probs
        else:
            target = (probs.cumsum(0) < rng.random(voxels)).sum(0)
        found.append(Voxels(odds, label, torch.from_numpy(target)))
    return found


def exact_for(calibration: LogOddsMap, voxels: int = 50, seed: int = 0) -> list[Voxels]:
    """Each voxel once for each class, weighted by its probability under the map: that map is the
    best, exactly."""
    rng = np.random.default_rng(seed)
    odds = torch.from_numpy(rng.normal(size=(calibration.num_structures, voxels)) * 2)
    label = chosen(odds, False)
    probs = calibration.to_probabilities(odds, label)
    num = len(probs)
    target = torch.arange(num).repeat_interleave(voxels)
    return [Voxels(odds.repeat(1, num), label.repeat(num), target, probs.ravel())]


def quality_of(structures: dict, entropy=math.nan, voxel: float = 1.0) -> pd.DataFrame:
    """A table of cases: by structure predicted and true Dice of each, and perhaps predicted and
    true volumes."""
    entropy, frames = np.asarray(entropy, float), []
    for key, values in structures.items():
        columns = dict(zip(("predicted_dice", "Dice"), values)) | {
            "entropy": entropy,
            "confidence": 1 - entropy,
        }
        columns |= {
            "predicted_volume": values[-2],
            "true_volume": values[-1],
            "network_volume": values[-2],
        }
        columns |= {
            "volume": values[-1],
            "network_dice": 0.5,
            "max_probability": 0.5,
            "true_pieces": 1,
        }
        cases = [f"case_{i}" for i in range(len(values[0]))]
        frames.append(
            pd.DataFrame(
                {"case": cases, "key": key, "unit": "ml", "voxel_volume": voxel, **columns}
            )
        )
    return pd.concat(frames).sort_index(kind="stable").reset_index(drop=True)
