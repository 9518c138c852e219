"""Voxels whose best map is known."""

from __future__ import annotations

import math

import numpy as np
import torch

from nnunet_nacl.numbers.case_voxels import HeldOutCase, Voxels, read_voxels, unpack
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.numbers.quality_report import QualityRows
from nnunet_nacl.runs.heldout import HeldOut


def chosen(odds: torch.Tensor, regions: bool) -> torch.Tensor:
    """The label of each voxel by its log-odds: the lowest of the most probable classes, or whether in each region."""
    return (odds > 0).long() if regions else torch.cat([torch.zeros_like(odds[:1]), odds]).argmax(0)


def drawn_from(calibration: LogOddsMap, cases: int = 6, voxels: int = 4000, seed: int = 0) -> list[Voxels]:
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
    """Each voxel once for each class, weighted by its probability under the map: that map is the best, exactly."""
    rng = np.random.default_rng(seed)
    odds = torch.from_numpy(rng.normal(size=(calibration.num_structures, voxels)) * 2)
    label = chosen(odds, False)
    probs = calibration.to_probabilities(odds, label)
    num = len(probs)
    target = torch.arange(num).repeat_interleave(voxels)
    return [Voxels(odds.repeat(1, num), label.repeat(num), target, probs.ravel())]


def quality_of(structures: dict, entropy=math.nan) -> QualityRows:
    """Rows of cases: by structure expected and true Dice of each, and perhaps expected and true volumes."""
    tables = [np.array([np.asarray(values[i], float) for values in structures.values()]).T for i in (0, 1, -2, -1)]
    tables[0] = np.stack([tables[0], *np.full((2, *tables[0].shape), math.nan)], axis=-1)
    entropy = np.broadcast_to(np.asarray(entropy, float), len(tables[0]))
    return QualityRows(tuple(structures), *tables, entropy, 1 - entropy)


def read_held_out(held_out: HeldOut, case: str) -> HeldOutCase:
    """All voxels of a case."""
    folder = held_out.folders[held_out.fold[case]]
    return read_voxels(folder.load(held_out.files[case]), folder.labels, held_out.settings)


def all_voxels(case: HeldOutCase) -> Voxels:
    """For a fit to more than a sample."""
    odds = torch.cat(list(case.odds()), 1)
    label, truth = (
        unpack(codes, len(odds)) if case.regions else codes.astype(np.int64) for codes in (case.label, case.target)
    )
    return Voxels(odds, torch.from_numpy(label), torch.from_numpy(truth))
