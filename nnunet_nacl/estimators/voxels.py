"""Voxels that a calibration map is fitted to: of a case, and of a case by the label that the
network chose."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.estimators.log_odds import (
    clip_log_odds,
    is_certain_background,
    log_loss,
    total_log_odds,
)


@dataclass(frozen=True)
class LabelVoxels:
    """Voxels of one label, but for certain background, which no map changes.

    Attributes:
        features: (m + 2, n) f: clipped log-odds u, their total v, and 1; of a region (3, n).
        target: (n,) true class, or whether the voxel is in the region.
        weights: (n,) float64. All of a case, over labels and regions, sum to 1, or to less where
            voxels are certain background.
    """

    features: Tensor
    target: Tensor
    weights: Tensor

    @property
    def odds(self) -> Tensor:
        """(m, n) clipped log-odds."""
        return self.features[:-2]


@dataclass(frozen=True)
class Voxels:
    """Voxels of one case.

    Attributes:
        log_odds: (m, N), see :func:`nnunet_nacl.estimators.log_odds.log_odds`; not clipped.
        label: (N,) most probable class 0..m, or (m, N) whether the network chose in (1) or out of
            (0) each region.
        target: The true class, or whether a voxel is in each region, in the shape of ``label``.
        weights: (N,) how many voxels of the case each stands for; None for one each.
    """

    log_odds: Tensor
    label: Tensor
    target: Tensor
    weights: Tensor | None = None

    @property
    def regions(self) -> bool:
        """Whether the structures are regions."""
        return self.target.ndim == 2

    @property
    def all_weights(self) -> Tensor:
        """(N,) float64."""
        if self.weights is None:
            return torch.ones(self.log_odds.shape[1]).double()
        return self.weights.double()

    @cached_property
    def by_label(self) -> dict[tuple[int, int], LabelVoxels]:
        """The voxels that a map changes, by label and by region (0 of classes)."""
        uncertain = torch.nonzero(~is_certain_background(self.log_odds)).ravel()
        labels = torch.atleast_2d(self.label)
        targets = torch.atleast_2d(self.target)
        # The loss of regions is the mean over them; classes have one row of targets.
        weights = self.all_weights / self.all_weights.sum() / len(targets)
        result = {}
        for region in range(len(labels)):
            odds = self.log_odds[region : region + 1] if self.regions else self.log_odds
            label = labels[region]
            for value in label[uncertain].unique().tolist():
                where = uncertain[label[uncertain] == value]
                clipped = clip_log_odds(odds[:, where].float(), self.regions).double()
                features = torch.cat(
                    [clipped, total_log_odds(clipped)[None], torch.ones_like(clipped[:1])]
                )
                target = targets[region, where].long()
                result[int(value), region] = LabelVoxels(features, target, weights[where])
        return result

    @cached_property
    def certain_loss(self) -> float:
        """What the voxels that no map changes add to the mean loss of the case."""
        certain = is_certain_background(self.log_odds)
        odds = self.log_odds[:, certain].double()
        target = self.target[..., certain].long()
        if self.regions:
            losses = (torch.nn.functional.softplus(odds) - target * odds).mean(0)
        else:
            losses = log_loss(torch.zeros_like(odds[0]), odds, target)
        return float(losses @ self.all_weights[certain] / self.all_weights.sum())


def group_by_label(cases: Sequence[Voxels]) -> Iterator[tuple[int, int, LabelVoxels]]:
    """Label, region (0 of classes) and the voxels of all cases that have both, in order."""
    keys: set[tuple[int, int]] = set()
    for case in cases:
        keys.update(case.by_label)
    for label, region in sorted(keys):
        groups = [
            case.by_label[label, region] for case in cases if (label, region) in case.by_label
        ]
        yield (
            label,
            region,
            LabelVoxels(
                features=torch.cat([group.features for group in groups], -1),
                target=torch.cat([group.target for group in groups]),
                weights=torch.cat([group.weights for group in groups]),
            ),
        )


def find_structures_in_truth(cases: Iterable[Voxels]) -> np.ndarray:
    """(m,) whether a structure is in the truth of any case."""
    by_case = []
    for case in cases:
        if case.regions:
            by_case.append(case.target.any(1).numpy())
        else:
            structures = 1 + np.arange(len(case.log_odds))
            by_case.append(np.isin(structures, case.target))
    return np.any(by_case, axis=0)
