"""Counting on the CPU by functions that numba compiles, where numba is installed: see kernels.py for how."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import fields
from functools import lru_cache

import numpy as np
import torch

from nnunet_nacl.metrics.binning import bin_edges
from nnunet_nacl.metrics.checks import CaseArrays
from nnunet_nacl.metrics.counters import background_threshold, region_threshold
from nnunet_nacl.metrics.groups import FIRST_EXTRA, GroupSums

__all__ = ["CHUNK_VOXELS", "WORTHWHILE", "count", "is_available"]

CHUNK_VOXELS = 1 << 18
WORTHWHILE = 1 << 23  # probabilities; for fewer, importing numba would take longer than counting without it

_IGNORED = 128  # as in kernels, which only numba's users can import


def is_available() -> bool:
    """Whether numba is installed; it is not imported for the answer."""
    return importlib.util.find_spec("numba") is not None


def count(case: CaseArrays, sums: GroupSums, *, regions: bool, check_values: bool, chunk_voxels: int) -> bool:
    """Add a case on the CPU to ``sums``, zero before.

    Returns:
        Whether that was done. If not, ``sums`` is of no use: numba does not work here, or there are values that may be
        no probabilities (the PyTorch code finds the words for that).
    """
    kernel = _kernel(regions, case.probs.dtype == torch.float64, case.probs.shape[0] > 256)
    if kernel is None:
        return False
    run = _Run(case, sums, regions, check_values)
    return all(
        run.add(kernel, slice(start, min(start + chunk_voxels, case.probs.shape[1])))
        for start in range(0, case.probs.shape[1], chunk_voxels)
    ) and run.finish()


@lru_cache(maxsize=None)
def _kernel(regions: bool, double: bool, many_classes: bool):
    """The compiled function for these types, or None where numba is missing or does not work."""
    try:
        from nnunet_nacl.metrics.kernels import load
    except ImportError:
        return None
    channels = 257 if many_classes else 2
    probs = torch.zeros(channels, 1, dtype=torch.float64 if double else torch.float32)
    truth = torch.zeros(channels, 1, dtype=torch.bool) if regions else torch.zeros(1, dtype=torch.int64)
    sums = GroupSums.zeros(4, channels, 1, regions, probs.device)
    empty = _Run(CaseArrays(probs, truth, {}, None), sums, regions, check_values=True)
    try:
        try:
            kernel = load(regions)
            empty.add(kernel, slice(0, 0))
        except OSError:  # the folder of the cache can be written no longer, or is full
            kernel = load(regions, cached=False)
            empty.add(kernel, slice(0, 0))
    except Exception as error:  # noqa: BLE001 - whatever numba's compiler raises, there is another way to count
        warnings.warn(
            f"numba cannot compile the counting of probabilities here ({type(error).__name__}: {error}); PyTorch "
            "counts them, more slowly.",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return kernel


class _Run:
    """What a case's chunks share: arrays for the compiled function, and the sums that are not by bin."""

    def __init__(self, case: CaseArrays, sums: GroupSums, regions: bool, check_values: bool) -> None:
        self._case, self._regions, self._sums = case, regions, sums
        groups, channels, n_bins = sums.class_count.shape
        double = case.probs.dtype == torch.float64
        self._dtype = torch.float64 if double else torch.float32
        real, self._raw = (np.float64, np.uint64) if double else (np.float32, np.uint32)
        one = np.ones(1, real).view(self._raw)[0]
        edges = bin_edges(n_bins)
        edges[0], edges[-1] = -np.inf, np.inf
        self._arrays = [getattr(sums, field.name).numpy() for field in fields(sums)]
        if regions:
            highest = one if check_values else np.iinfo(self._raw).max
            self._constants = edges.astype(real), edges, region_threshold(n_bins), self._raw(highest)
            self._products = np.ones((groups, channels))
            self._values, self._rest = np.zeros(channels), np.zeros(2 * channels + 1)
        else:
            tolerance = float(case.tolerance) if check_values else -1.0
            self._constants = edges.astype(real), background_threshold(n_bins), one, tolerance
            self._products = np.ones(groups)
            self._values, self._rest = np.zeros(channels + 3), np.zeros(3)

    def add(self, kernel, part: slice) -> bool:
        """Count a chunk; False if it holds values that may be no probabilities."""
        probs, offset = self._case.probs, part.start
        if probs.dtype != self._dtype or not probs.is_contiguous():
            probs, offset = probs[:, part].to(self._dtype).contiguous(), 0
        probs = probs.numpy()
        truth = self._truth(part)
        suspicious = kernel(
            probs, probs.view(self._raw), offset, *truth, self._bits(part), *self._constants, self._products,
            *self._arrays, self._values, self._rest,
        )  # fmt: skip
        return not suspicious

    def _truth(self, part: slice) -> tuple:
        truth = self._case.truth
        if self._regions:
            if truth.is_contiguous():
                return truth.view(torch.uint8).numpy(), part.start
            return truth[:, part].contiguous().view(torch.uint8).numpy(), 0
        dtype = torch.uint8 if self._case.probs.shape[0] <= 256 else torch.int32
        return (truth[part].to(dtype).contiguous().numpy(),)

    def _bits(self, part: slice) -> np.ndarray:
        """uint8 mask bits as in the group's number."""
        bits = np.zeros(part.stop - part.start, np.uint8)
        for i, mask in enumerate(self._case.masks.values()):
            bits |= mask[part].numpy().view(np.uint8) << FIRST_EXTRA + i
        if self._case.valid is not None:
            bits[~self._case.valid[part].numpy()] = _IGNORED
        return bits

    def finish(self) -> bool:
        """Add what was summed apart from the bins; True."""
        count, confidence, correct, class_count, class_confidence, class_positive, nll, brier = self._arrays
        channels = class_count.shape[1]
        nll -= np.log(self._products).reshape(nll.shape)
        values, rest = self._values[:channels], self._rest
        num_plain = int(rest[-1])
        if self._regions:
            count[0, :, -1] += num_plain
            correct[0, :, -1] += num_plain
            confidence[0, :, -1] += num_plain - values
            class_count[0, :, 0] += num_plain
            class_confidence[0, :, 0] += values
            brier[0] += 2 * rest[:channels]
            nll[0] -= rest[channels : 2 * channels]
            return True
        # the lowest bins still lack all but the plain voxels
        class_count[:, :, 0] += count.sum((1, 2))[:, None] - class_count.sum(2)
        count[0, 0, -1] += num_plain
        correct[0, 0, -1] += num_plain
        confidence[0, 0, -1] += values[0]
        class_count[0, 0, -1] += num_plain
        class_positive[0, 0, -1] += num_plain
        class_confidence[0, 0, -1] += values[0]
        class_count[0, 1:, 0] += num_plain
        class_confidence[0, 1:, 0] += values[1:]
        brier[0] += rest[0]
        nll[0] -= rest[1]
        return True
