"""The map: affine in the log-odds, so that it fits into a network's last layer and commutes with averages of logits.

    classes:  z'_0 = z_0,  z'_k = z_0 + a_k (z_k - z_0) + b_k      (0 the background)
    regions:  z'_r = a_r z_r + b_r

It is blind to a constant common to all classes, so saved probabilities, from which logits are known only up to such a
constant, are as good as logits: log p_k - log p_0 = z_k - z_0. It commutes with averages of logits (nnU-Net's, over
mirrored copies, tiles and folds) and with linear and nearest resampling. A slope per class on the logits themselves
(vector scaling, Guo et al. 2017) has neither property.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["AffineMap", "log_odds", "network_box"]

_SMALLEST = float(torch.finfo(torch.float32).tiny)  # as the metrics clip
_BLOCK = 1 << 20  # probabilities at a time


@dataclass(frozen=True)
class AffineMap:
    """One calibration of one set of structures; m is K - 1 for K classes, R for R regions.

    Attributes:
        slopes: (m,) a, all above 0.
        offsets: (m,) b.
        regions: Whether the channels are sigmoid regions.

    Raises:
        ValueError: Shapes differ, a slope is not above 0, or a number is not finite.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    regions: bool = False

    def __post_init__(self) -> None:
        for name in ("slopes", "offsets"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        if self.slopes.ndim != 1 or self.slopes.shape != self.offsets.shape or not self.slopes.size:
            shapes = f"{self.slopes.shape} and {self.offsets.shape}"
            raise ValueError(f"slopes and offsets must be lists of one length, got {shapes}.")
        if not (np.isfinite(self.slopes).all() and np.isfinite(self.offsets).all() and (self.slopes > 0).all()):
            raise ValueError(f"slopes must be above 0 and all finite, got {self.slopes} and {self.offsets}.")

    @classmethod
    def identity(cls, num: int, regions: bool = False) -> AffineMap:
        """The map of ``num`` structures that changes nothing."""
        return cls(np.ones(num), np.zeros(num), regions)

    @property
    def num_channels(self) -> int:
        """Probability channels that it takes."""
        return len(self.slopes) + (not self.regions)

    def matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """(C, C) matrix and (C,) vector that act on a network's logits: z' = matrix @ z + vector."""
        if self.regions:
            return np.diag(self.slopes), self.offsets.copy()
        matrix = np.diag(np.append(0.0, self.slopes))
        matrix[:, 0] = 1 - np.diag(matrix)
        return matrix, np.append(0.0, self.offsets)

    def on_logits(self, logits: Tensor) -> Tensor:
        """(C, ...) float64 calibrated logits of a network's (C, ...) logits."""
        matrix, vector = (torch.from_numpy(part) for part in self.matrix())
        return torch.tensordot(matrix, logits.double(), dims=1) + vector.view(-1, *[1] * (logits.ndim - 1))

    def to_probabilities(self, odds: Tensor) -> Tensor:
        """(C, ...) calibrated probabilities of (m, ...) log-odds."""
        column = (-1,) + (1,) * (odds.ndim - 1)
        slopes, offsets = (torch.as_tensor(part).to(odds).view(column) for part in (self.slopes, self.offsets))
        mapped = odds * slopes + offsets
        if self.regions:
            return mapped.sigmoid()
        return torch.cat([torch.zeros_like(mapped[:1]), mapped]).softmax(0)

    def __call__(self, probs: np.ndarray, inside: tuple[slice, ...] | None = None) -> np.ndarray:
        """Calibrate the probabilities of one case.

        Args:
            probs: (C, *spatial) as nnU-Net saves them. What lies outside nnU-Net's crop stays as it is: no network
                has seen it.
            inside: Where in ``probs`` that crop is; None looks for it, see :func:`network_box`.

        Returns:
            A new array of the same shape; float32, or float64 if that was given.

        Raises:
            ValueError: The number of channels is not that of the map.
        """
        if len(probs) != self.num_channels:
            raise ValueError(f"this map is for {self.num_channels} channels, got probabilities of shape {probs.shape}.")
        result = probs.astype(np.float64 if probs.dtype == np.float64 else np.float32)
        box = network_box(probs, self.regions) if inside is None else inside
        if box is None or not result[(slice(None), *box)].size:
            return result
        source, target = probs[(slice(None), *box)], result[(slice(None), *box)]
        rows = max(1, _BLOCK // max(1, source[:, 0].size))
        for start in range(0, source.shape[1], rows):
            part = slice(start, start + rows)
            target[:, part] = self.to_probabilities(log_odds(source[:, part], self.regions)).numpy()
        return result


def log_odds(probs: np.ndarray | Tensor, regions: bool = False) -> Tensor:
    """Log-odds against the background, log p_k - log p_0, or of each region, log p - log(1 - p).

    Probabilities of exactly 0 count as the smallest normal float32, as in the metrics. A region's probability of
    exactly 1 counts as halfway to 1 from the largest number below it: float32's sigmoid is 1 from z = 17 on, and what
    z was cannot be known from it.

    Args:
        probs: (C, ...) probabilities of any floating type.
        regions: Whether they are of sigmoid regions.

    Returns:
        (m, ...) float32, or float64 if that was given.
    """
    probs = torch.as_tensor(np.ascontiguousarray(probs) if isinstance(probs, np.ndarray) else probs)
    step = torch.finfo(probs.dtype).eps
    if probs.dtype != torch.float64:
        probs = probs.float()
    if regions:
        return probs.clamp_min(_SMALLEST).log() - (1 - probs.double()).clamp_min(step / 4).log().to(probs.dtype)
    logs = probs.clamp_min(_SMALLEST).log()
    return logs[1:] - logs[:1]


def network_box(probs: np.ndarray, regions: bool = False) -> tuple[slice, ...] | None:
    """The part of the image that the network saw: nnU-Net's crop.

    nnU-Net fills what lies outside with background 1 and all else exactly 0 (regions: 0 throughout). Inside, a
    probability of exactly 0 takes logits more than 100 apart. So the box of the voxels where any structure has a
    probability above 0 is the crop.

    Args:
        probs: (C, *spatial) probabilities.
        regions: Whether they are of sigmoid regions.

    Returns:
        A slice for each spatial axis; None if no structure has any probability anywhere.
    """
    seen = (probs if regions else probs[1:]).max(axis=0) > 0
    if not seen.any():
        return None
    axes = range(seen.ndim)
    hits = [np.flatnonzero(seen.any(axis=tuple(a for a in axes if a != axis))) for axis in axes]
    return tuple(slice(int(hit[0]), int(hit[-1]) + 1) for hit in hits)
