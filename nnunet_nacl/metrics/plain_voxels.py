"""Sums over the plain voxels: those whose bins are known without looking.

A voxel is plain if it is labelled background, lies in no mask, and its probabilities lie in bins that follow from one
comparison: the background's in the top bin, all others in the lowest (a region's in the lowest). Of these voxels only
sums are needed, over everything.

The background enters as 1 - p_0 and without the special voxels; the other channels are summed over all voxels, and what
the special ones have of it is taken off at the end.

How exact: logarithms are summed in double precision, and so is everything of small cases. Of larger ones
(``EXACT_BELOW`` probabilities and more), float32 values are summed in float32 in blocks of 256, and the blocks' sums in
double precision. Roundings have random signs: metrics of all voxels but NLL change by some 1e-9 (see the tests), those
of the masks, which hold no plain voxel, not at all.
Chunks of mostly special voxels are summed in double precision: few plain voxels would be a small remainder of large,
rounded sums.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.metrics.checks import SUM_TOLERANCE

__all__ = ["BLOCK", "EXACT_BELOW", "PlainSums", "background_threshold", "region_threshold"]

EXACT_BELOW = 1 << 23  # probabilities of a case
BLOCK = 256  # so many numbers between 1/2 and 1 have a product that is far from the smallest double
_SLACK = 1e-3  # how far a plain voxel's probabilities stay from the bin edges


def background_threshold(n_bins: int) -> float:
    """Above this background probability all others lie in the lowest bin, and are lower, even if the sum is not 1."""
    return max(1 - 1 / n_bins, 0.5) + 2 * SUM_TOLERANCE + _SLACK


def region_threshold(n_bins: int) -> float:
    """Below this a region's probability lies in the lowest bin, and predicts "out"."""
    return min(1 / n_bins, 0.5) - _SLACK


class PlainSums:
    """Sums of the plain voxels' distances from the truth: 1 - p_0 and p_k for classes, p_r for regions.

    Args:
        num_channels: K or R.
        regions: Whether channels are regions.
        device: Where the chunks are.

    Attributes:
        num_voxels: How many.
        total: (num_channels,) sums.
        squares: (num_channels,) sums of squares.
        log: (1,) or (R,) sums of log(1 - distance) of the background, or of each region.
    """

    def __init__(self, num_channels: int, regions: bool, device: torch.device) -> None:
        self._first = 0 if regions else 1  # of the channels that are summed over all voxels
        self.num_voxels = 0
        self.total = torch.zeros(num_channels, dtype=torch.float64, device=device)
        self.squares = torch.zeros_like(self.total)
        self.log = torch.zeros(num_channels if regions else 1, dtype=torch.float64, device=device)

    def add(self, chunk: Tensor, special: Tensor) -> None:
        """Add a chunk.

        Args:
            chunk: (K, n) float32 or float64.
            special: Indices of the voxels in it that are not plain.
        """
        self.num_voxels += chunk.shape[1] - len(special)
        if 2 * len(special) <= chunk.shape[1]:
            self._add(chunk[self._first :], slice(self._first, None))
        else:  # what remains when most is taken off must be exact; row by row, for the memory
            for k in range(self._first, len(chunk)):
                self._add(chunk[k : k + 1].double(), slice(k, k + 1))
        if self._first:
            certainty = chunk[0].clone().index_fill_(0, special, 1)
            self.log += _sum_of_logs(certainty)
            self._add(torch.sub(1, certainty, out=certainty)[None], slice(0, 1))
        else:
            self.log += torch.stack([_sum_of_logs((1 - row.double()).index_fill_(0, special, 1)) for row in chunk])

    def take_off(self, special: Tensor) -> None:
        """Subtract (K, m) probabilities of special voxels, in double precision, where they were added."""
        values = special[self._first :]
        self.total[self._first :] -= values.sum(1)
        self.squares[self._first :] -= torch.linalg.vector_norm(values, dim=1).square_()

    def finish(self) -> None:
        """Roundings of a sum and its parts differ: no sum of these numbers is negative."""
        self.total.clamp_min_(0)
        self.squares.clamp_min_(0)

    def _add(self, values: Tensor, rows: slice) -> None:
        whole = values.shape[1] // BLOCK * BLOCK
        for part in (values[:, :whole].unflatten(1, (-1, BLOCK)), values[:, None, whole:]):
            if part.numel():
                self.total[rows] += part.sum(-1).sum(-1, dtype=torch.float64)
                self.squares[rows] += torch.linalg.vector_norm(part, dim=-1).double().square_().sum(-1)


def _sum_of_logs(values: Tensor) -> Tensor:
    """Sum of the logarithms of values between 1/2 and 1, in double precision; few logarithms are taken, of products."""
    values = values.double()
    whole = len(values) // BLOCK * BLOCK
    return values[:whole].view(BLOCK, -1).prod(0).log_().sum() + values[whole:].log().sum()
