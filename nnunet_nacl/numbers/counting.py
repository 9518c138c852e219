"""One pass over a case's probabilities: the calibration sums of every mask at once.

Two observations make it cheap. The masks overlap, but the voxels fall into few disjoint groups (truth foreground x
predicted foreground x each further mask), and every mask is a sum of groups. And most voxels are plain: labelled
background, in no mask, with nearly all probability on the background, so that their bins are known beforehand and only
sums over everything are needed, of their distances from the truth: 1 - p_0 and p_k for classes, p_r for regions. One
comparison tells: the background's probability lies in the top bin, all others in the lowest (a region's in the lowest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.binning import DEFAULT_N_BINS, BinStats, check_n_bins
from nnunet_nacl.numbers.checks import check_chunk, parts, read_inputs, where_true
from nnunet_nacl.numbers.group_sums import BLOCK, GroupSums

BUILT_IN_MASKS = ("all", "foreground", "predicted", "union")

_MAX_EXTRA_MASKS = 5
_CPU_PROBABILITIES = 1 << 20  # at a time
EXACT_BELOW = 1 << 23  # probabilities of a case that is summed in double precision throughout


def count_masks(
    probs: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    *,
    segmentation: Tensor | np.ndarray | None = None,
    extra_masks: Mapping[str, Tensor | np.ndarray] | None = None,
    valid: Tensor | np.ndarray | None = None,
    ignore_label: int | None = None,
    regions: bool = False,
    n_bins: int = DEFAULT_N_BINS,
    check_values: bool = True,
    weights: Tensor | np.ndarray | None = None,
) -> dict[str, BinStats]:
    """Calibration sums of one case for all masks, in bounded memory.

    The confidence of a voxel is the probability of its label in the segmentation, and correct is this label: of what is
    delivered, whether that is the most probable label or not.

    ``foreground`` holds the voxels whose truth is not background (inside any region), ``predicted`` those whose label
    in the segmentation is not, ``union`` both, ``all`` every voxel. Ignored voxels are in no mask.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region probabilities; any
            floating type, any device (where that has no double precision, Apple's MPS, a copy on the CPU is counted).
        truth: (*spatial) or (1, *spatial) class indices 0..K-1; with ``regions`` (R, *spatial) booleans or 0/1.
        segmentation: Labels that are delivered, of the shape of the truth. None: the most probable ones, the lower
            class of equals (regions: above 0.5).
        extra_masks: Further masks by name, each (*spatial) boolean; at most five.
        valid: (*spatial) boolean, False where a voxel is ignored.
        ignore_label: Label in ``truth`` that marks ignored voxels (classes only).
        regions: Whether the probabilities are those of sigmoid regions.
        n_bins: Number of equal bins.
        check_values: Check that probabilities are finite, in [0, 1] and, for classes, sum to 1.
        weights: (*spatial) how many voxels each one stands for, as in a sample; then counts are sums of weights. None:
            one each.

    Returns:
        Sums by mask name; they live on the CPU.

    Raises:
        ValueError: Shapes do not fit, a label is none of the classes, or probabilities are not probabilities.
    """
    check_n_bins(n_bins)
    extra = extra_masks or {}
    if built_in := extra.keys() & set(BUILT_IN_MASKS):
        raise ValueError(f"The mask {min(built_in)!r} is built in and cannot be given; use another name.")
    if len(extra) > _MAX_EXTRA_MASKS:
        raise ValueError(f"At most {_MAX_EXTRA_MASKS} extra masks are possible, got {len(extra)}.")
    delivered = None
    if segmentation is not None:
        _, delivered, _, _ = read_inputs(probs, segmentation, {}, None, None, regions)
    flat, truths, masks, known = read_inputs(probs, truth, extra, valid, ignore_label, regions)
    num_classes, device, on_cpu = len(flat), flat.device, flat.device.type == "cpu"
    sums = GroupSums(list(extra), num_classes, n_bins, regions, flat.numel() < EXACT_BELOW, device)
    stands_for = None if weights is None else torch.as_tensor(weights, device=device).double().flatten()
    if stands_for is not None and len(stands_for) != flat.shape[1]:
        raise ValueError(f"one weight per voxel is needed, got {len(stands_for)} for {flat.shape[1]}.")
    step = max(1 << 12, _CPU_PROBABILITIES // num_classes // BLOCK * BLOCK) if on_cpu else 1 << 22
    for part in parts(flat.shape[1], step):
        chunk = flat[:, part]
        if chunk.dtype not in (torch.float32, torch.float64):
            chunk = chunk.float()
        if check_values:
            check_chunk(chunk, regions)
        keep: Any = slice(None)
        if known is not None and not known[part].all():
            keep = where_true(known[part])
            chunk = chunk.index_select(1, keep)
        if chunk.shape[1]:
            inside = [mask[part][keep] for mask in masks]
            labels = None if delivered is None else delivered[..., part][..., keep]
            share = None if stands_for is None else stands_for[part][keep]
            sums.add(chunk, truths[..., part][..., keep], inside, labels, share)
    return sums.by_mask()
