"""Voxels whose best map is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch

from nnunet_nacl.estimators.log_odds_map import LogOddsMap, map_from_tables
from nnunet_nacl.estimators.voxels import Voxels


def identity(num: int, regions: bool = False) -> LogOddsMap:
    """The map of ``num`` structures that changes nothing."""
    return map_from_tables(np.ones((1, num)), np.zeros((1, num)), regions)


def chosen(odds: torch.Tensor, regions: bool) -> torch.Tensor:
    """The label of each voxel by its log-odds: the lowest of the most probable classes, or whether
    in each region."""
    if regions:
        return (odds > 0).long()
    background = torch.zeros_like(odds[:1])
    return torch.cat([background, odds]).argmax(0)


def keep_voxels(case: Voxels, kept: torch.Tensor) -> Voxels:
    """The case with those of its voxels where ``kept`` is True, all of weight 1."""
    return Voxels(case.log_odds[:, kept], case.label[..., kept], case.target[..., kept])


def drawn_from(
    calibration: LogOddsMap, cases: int = 6, voxels: int = 4000, seed: int = 0
) -> list[Voxels]:
    """Truths drawn from what the map says, so that it is the best one up to chance."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(cases):
        odds = torch.from_numpy(rng.normal(-0.5, 2.0, (calibration.num_structures, voxels)))
        label = chosen(odds, calibration.regions)
        probs = calibration.to_probabilities(odds, label).numpy()
        if calibration.regions:
            target = rng.random(probs.shape) < probs
        else:
            target = (probs.cumsum(0) < rng.random(voxels)).sum(0)
        drawn.append(Voxels(odds, label, torch.from_numpy(target)))
    return drawn


def exact_for(calibration: LogOddsMap, voxels: int = 50, seed: int = 0) -> list[Voxels]:
    """Each voxel once for each class, weighted by its probability under the map: that map is the
    best, exactly."""
    rng = np.random.default_rng(seed)
    odds = torch.from_numpy(rng.normal(size=(calibration.num_structures, voxels)) * 2)
    label = chosen(odds, False)
    probs = calibration.to_probabilities(odds, label)
    num_classes = len(probs)
    target = torch.arange(num_classes).repeat_interleave(voxels)
    repeated_odds = odds.repeat(1, num_classes)
    return [Voxels(repeated_odds, label.repeat(num_classes), target, probs.ravel())]


def quality_of(structures: dict, entropy=math.nan, voxel: float = 1.0) -> pd.DataFrame:
    """A table of cases: by structure predicted and true Dice of each, and perhaps predicted and
    true volumes."""
    entropy = np.asarray(entropy, float)
    frames = []
    for key, values in structures.items():
        predicted_dice, true_dice = values[:2]
        predicted_volume, true_volume = values[-2:]
        frame = pd.DataFrame(
            {
                "case": [f"case_{number}" for number in range(len(predicted_dice))],
                "key": key,
                "unit": "ml",
                "voxel_volume": voxel,
                "predicted_dice": predicted_dice,
                "Dice": true_dice,
                "entropy": entropy,
                "confidence": 1 - entropy,
                "predicted_volume": predicted_volume,
                "true_volume": true_volume,
                "network_volume": predicted_volume,
                "volume": true_volume,
                "network_dice": 0.5,
                "max_probability": 0.5,
                "true_pieces": 1,
            }
        )
        frames.append(frame)
    return pd.concat(frames).sort_index(kind="stable").reset_index(drop=True)
