"""One pass over a case's probabilities: the calibration sums of every mask at once.

Two observations make it cheap. The masks overlap, but the voxels fall into few disjoint groups (truth foreground x
predicted foreground x each further mask), and every mask is a sum of groups. And most voxels are plain: labelled
background, in no mask, with nearly all probability on the background, so that their bins are known beforehand and only
sums over everything are needed: see :mod:`nnunet_nacl.metrics.group_sums`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import DEFAULT_N_BINS, BinStats, check_n_bins
from nnunet_nacl.metrics.checks import check_chunk, read_inputs
from nnunet_nacl.metrics.group_sums import BLOCK, GroupSums
from nnunet_nacl.metrics.primitives import where_true

__all__ = ["BUILT_IN_MASKS", "count_masks"]

BUILT_IN_MASKS = ("all", "foreground", "predicted", "union")

_MAX_EXTRA_MASKS = 5
EXACT_BELOW = 1 << 23  # probabilities of a case that is summed in double precision throughout


def count_masks(
    probs: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    *,
    extra_masks: Mapping[str, Tensor | np.ndarray] | None = None,
    valid: Tensor | np.ndarray | None = None,
    ignore_label: int | None = None,
    regions: bool = False,
    n_bins: int = DEFAULT_N_BINS,
    check_values: bool = True,
    chunk_voxels: int | None = None,
) -> dict[str, BinStats]:
    """Calibration sums of one case for all masks, in bounded memory.

    ``foreground`` holds the voxels whose truth is not background (inside any region), ``predicted`` those whose
    largest probability is not the background's (any region's above 0.5), ``union`` both, ``all`` every voxel.
    Ignored voxels are in no mask.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region probabilities; any
            floating type, any device (where that has no double precision, Apple's MPS, a copy on the CPU is counted).
            Ties of the largest probability go to the lower class.
        truth: (*spatial) or (1, *spatial) class indices 0..K-1; with ``regions`` (R, *spatial) booleans or 0/1.
        extra_masks: Further masks by name, each (*spatial) boolean; at most five.
        valid: (*spatial) boolean, False where a voxel is ignored.
        ignore_label: Label in ``truth`` that marks ignored voxels (classes only).
        regions: Whether the probabilities are those of sigmoid regions.
        n_bins: Number of equal bins.
        check_values: Check that probabilities are finite, in [0, 1] and, for classes, sum to 1.
        chunk_voxels: Voxels per step; the result does not depend on it. Default: about a million probabilities on the
            CPU, 4 million voxels else.

    Returns:
        Sums by mask name; they live on the CPU.

    Raises:
        ValueError: Shapes do not fit, a label is none of the classes, or probabilities are not probabilities.
    """
    check_n_bins(n_bins)
    case = read_inputs(probs, truth, extra_masks or {}, valid, ignore_label, regions)
    for name in case.masks:
        if name in BUILT_IN_MASKS:
            raise ValueError(f"The mask {name!r} is built in and cannot be given; use another name.")
    if len(case.masks) > _MAX_EXTRA_MASKS:
        raise ValueError(f"At most {_MAX_EXTRA_MASKS} extra masks are possible, got {len(case.masks)}.")
    num_classes, device = case.probs.shape[0], case.probs.device
    exact = case.probs.numel() < EXACT_BELOW
    sums = GroupSums(list(case.masks), num_classes, n_bins, regions, exact, device)
    if chunk_voxels is None:
        chunk_voxels = max(1 << 12, (1 << 20) // num_classes // BLOCK * BLOCK) if device.type == "cpu" else 1 << 22
    for start in range(0, case.probs.shape[1], chunk_voxels):
        part = slice(start, start + chunk_voxels)
        chunk, labels = case.probs[:, part], case.truth[..., part]
        masks = [mask[part] for mask in case.masks.values()]
        if chunk.dtype not in (torch.float32, torch.float64):
            chunk = chunk.float()
        if check_values:
            check_chunk(chunk, regions)
        if case.valid is not None and not case.valid[part].all():
            keep = where_true(case.valid[part])
            chunk, labels = chunk.index_select(1, keep), labels.index_select(-1, keep)
            masks = [mask.index_select(0, keep) for mask in masks]
        if chunk.shape[1]:
            sums.add(chunk, labels, masks)
    return sums.by_mask()
