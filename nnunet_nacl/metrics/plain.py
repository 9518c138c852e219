"""Sums over the plain voxels: those whose bins are known without looking.

A voxel is plain if it is labelled background, lies in no mask, and its probabilities lie in bins that follow from one
comparison: the background's in the top bin, all others in the lowest (a region's in the lowest). Of these voxels only
sums are needed, over everything.

How exact: small cases are summed in double precision. Of larger ones (``EXACT_BELOW`` probabilities and more), float32
values are summed in float32 in blocks of 256 and the blocks' sums in double precision. PyTorch adds a block in 16
or more partial sums that are then added in pairs, at most 24 roundings in a row, so that a sum of n plain probabilities,
and of their squares, has a relative error below 24 * 2**-24 = 1.5e-6; the roundings have random signs, which leaves about
1e-7 / sqrt(blocks), 1e-9 or less. It is an error relative to sums of small numbers: the background enters as 1 - p_0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nnunet_nacl.metrics.checks import SUM_TOLERANCE

__all__ = ["EXACT_BELOW", "PlainSums", "background_threshold", "region_threshold"]

EXACT_BELOW = 1 << 23  # probabilities of a case
_BLOCK = 256
_FACTORS = 64  # numbers between 1/2 and 1 whose product stays in the range of double precision
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
        exact: Whether to sum float32 values in double precision.
        device: Where the chunks are.

    Attributes:
        num_voxels: How many.
        total: (num_channels,) sums.
        squares: (num_channels,) sums of squares.
        log: (1,) or (R,) sums of log(1 - distance) of the background, or of each region.
    """

    def __init__(self, num_channels: int, regions: bool, exact: bool, device: torch.device) -> None:
        self._first_is_background, self._exact = not regions, exact
        self.num_voxels = 0
        self.total = torch.zeros(num_channels, dtype=torch.float64, device=device)
        self.squares = torch.zeros_like(self.total)
        self.log = torch.zeros(num_channels if regions else 1, dtype=torch.float64, device=device)
        self._buffer = torch.empty(0)

    def add(self, chunk: Tensor, plain: Tensor, num_plain: int) -> None:
        """Add the voxels of a chunk (K, n), float32 or float64, that ``plain`` (n,) marks."""
        self.num_voxels += num_plain
        if not num_plain:
            return
        dtype = torch.float64 if self._exact else chunk.dtype
        weight = plain.to(dtype)
        if num_plain < len(plain) or dtype != chunk.dtype:
            chunk = self._weigh(chunk, weight)
        others = chunk
        if self._first_is_background:
            background, others = weight - chunk[0], chunk[1:]
            self._add(background[None], slice(0, 1))
            self.log += _sum_of_logs(background)
            self._add(others, slice(1, None))
        else:
            self._add(others, slice(None))
            self.log += torch.stack([_sum_of_logs(row) for row in others])

    def _weigh(self, chunk: Tensor, weight: Tensor) -> Tensor:
        if self._buffer.shape != chunk.shape or self._buffer.dtype != weight.dtype:
            self._buffer = torch.empty(chunk.shape, dtype=weight.dtype, device=chunk.device)
        if self._buffer.dtype == chunk.dtype:
            return torch.mul(chunk, weight, out=self._buffer)
        return self._buffer.copy_(chunk).mul_(weight)

    def _add(self, values: Tensor, rows: slice) -> None:
        whole = values.shape[1] // _BLOCK * _BLOCK
        for part in (values[:, :whole].unflatten(1, (-1, _BLOCK)), values[:, None, whole:]):
            if part.numel():
                self.total[rows] += part.sum(-1).sum(-1, dtype=torch.float64)
                norms = torch.linalg.vector_norm(part, dim=-1).double()
                self.squares[rows] += norms.square_().sum(-1)


def _sum_of_logs(distance: Tensor) -> Tensor:
    """Sum of log(1 - distance) in double precision, at the price of few logarithms: of products."""
    whole = len(distance) // _FACTORS * _FACTORS
    inverse = 1 - distance.double()
    return inverse[:whole].view(_FACTORS, -1).prod(0).log().sum() + inverse[whole:].log().sum()
