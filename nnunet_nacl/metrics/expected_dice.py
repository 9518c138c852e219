"""Expected Dice of a segmentation, from the probabilities of its voxels, and the largest of all.

For structure k of a segmentation s with probabilities p,

    E_k = 2 sum_{s = k} p_k / (sum p_k + |s = k|),

the ratio of the expectations of numerator and denominator of Dice. It needs no assumption about how
voxels depend on each other, and is near the expectation of the ratio where the structure is large.
The largest expected Dice that the probabilities of a structure allow comes from counts by bins of
their log-odds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace
from nnunet_nacl.metrics.inputs import (
    AnyArray,
    check_probabilities,
    find_true,
    read_labels,
    read_mask,
    read_probs,
    split_blocks,
    split_range,
)

_BLOCK_PROBABILITIES = 1 << 18  # that are worked on together: they stay in the cache
_LOWEST = 1e-3  # probability that is counted by bin
_BINS = 160
_BINS_PER_LOG_ODDS = _BINS / (2 * float(np.log1p(-_LOWEST) - np.log(_LOWEST)))


def expected_dice(
    probs: AnyArray, segmentation: AnyArray, *, regions: bool = False, valid: AnyArray | None = None
) -> np.ndarray:
    """(S,) expected Dice of each structure of a segmentation, NaN where it is absent there.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region
            probabilities; any floating type, any device. Sums are float64, in blocks: extra memory
            does not grow with the image.
        segmentation: (*spatial) label map, 0 to K - 1; of regions (R, *spatial) whether a voxel is
            in each.
        regions: Whether these are sigmoid regions.
        valid: (*spatial) boolean, False for voxels to leave out, as beside a true Dice those whose
            truth is ignored.

    Raises:
        ValueError: Shapes do not fit, a label is none of the classes, or probabilities are not
            probabilities.

    Examples:
        >>> probs = np.array([[0.1, 0.4, 0.9], [0.9, 0.6, 0.1]])
        >>> expected_dice(probs, np.array([1, 1, 0])).round(3)  # 2 * 1.5 / (1.6 + 2)
        array([0.833])
    """
    return dice_of_sums(count_expected(probs, segmentation, regions=regions, valid=valid))


def count_expected(
    probs: AnyArray, segmentation: AnyArray, *, regions: bool = False, valid: AnyArray | None = None
) -> np.ndarray:
    """The sums behind :func:`expected_dice`, which has the arguments and errors; those of two
    blocks can be added.

    Returns:
        (3, S), for each class but the background, or each region: the sum of p_k over all voxels,
        the expected size of the structure; the number of voxels with s = k, its size in the
        segmentation; and the sum of p_k over these, the expected size of what both share.
    """
    probs = read_probs(probs, regions)
    labels, _ = read_labels(segmentation, probs, LabelSpace(regions))
    flat_valid = read_mask(valid, "valid", probs) if valid is not None else None
    num_structures = len(probs) if regions else len(probs) - 1
    sums = np.zeros((3, num_structures))
    for part, block in split_blocks(probs):
        block_labels = labels[..., part]
        if flat_valid is not None:
            kept = find_true(flat_valid[part])
            block = block.index_select(1, kept)
            block_labels = block_labels.index_select(-1, kept)
        if not block.shape[1]:
            continue
        check_probabilities(block, regions)
        sum_block = _sum_regions if regions else _sum_classes
        block_sums = sum_block(block, block_labels)
        sums += [values.cpu().numpy() for values in block_sums]
    return sums


def _sum_classes(probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(K - 1,) expected sizes, sizes and shared sizes of (K, n) probabilities and (n,) labels."""
    foreground = find_true(labels != 0)  # most voxels of an image are background
    label = labels.index_select(0, foreground).long()
    p_label = probs[label, foreground].double()
    size = torch.bincount(label, minlength=len(probs))[1:]
    common = torch.bincount(label, p_label, minlength=len(probs))[1:]
    return probs[1:].sum(1, dtype=torch.float64), size, common


def _sum_regions(probs: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R,) expected sizes, sizes and shared sizes of (R, n) probabilities and booleans."""
    common = (probs * inside).sum(1, dtype=torch.float64)
    return probs.sum(1, dtype=torch.float64), inside.sum(1), common


def dice_of_sums(sums: np.ndarray) -> np.ndarray:
    """(S,) E_k in [0, 1], of (3, S) sums; NaN for a structure that is absent from the
    segmentation."""
    expected, size, common = sums
    return np.divide(2 * common, expected + size, out=np.full(len(size), np.nan), where=size > 0)


def count_probabilities(probs: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Counts the voxels of structures by their probability; those of two blocks can be added.

    Bins are of equal width in the log-odds from .001 to .999; what is above is in the last one. Of
    what is below, the first has the sum alone.

    Args:
        probs: (S, *block) probabilities of structures.
        valid: (*block) booleans; voxels where it is False count nowhere.

    Returns:
        (2, S, 1 + B) voxels by bin, and the sums of their probabilities.
    """
    flat = probs.reshape(len(probs), -1)
    flat_valid = None if valid is None else valid.ravel()
    voxels = np.zeros((len(flat), 1 + _BINS))
    sums = np.zeros((len(flat), 1 + _BINS))
    for structure, row in enumerate(flat):
        total = 0.0
        for part in split_range(len(row), _BLOCK_PROBABILITIES):
            block = row[part]
            if flat_valid is not None:
                block = block[flat_valid[part]]
            total += block.sum(dtype=np.float64)
            likely = block[np.flatnonzero(block > _LOWEST)].astype(np.float64)
            bins = 1 + _find_log_odds_bins(likely)
            voxels[structure] += np.bincount(bins, minlength=1 + _BINS)
            sums[structure] += np.bincount(bins, likely, minlength=1 + _BINS)
        sums[structure, 0] = max(total - sums[structure].sum(), 0)  # below 0 by rounding alone
    return np.stack([voxels, sums])


def _find_log_odds_bins(probs: np.ndarray) -> np.ndarray:
    """(n,) bins, from 0, of (n,) float64 probabilities above ``_LOWEST``."""
    p = torch.from_numpy(probs)  # whose logarithm is the faster one on most processors
    log_odds = (p / (1 - p.clamp_max(1 - _LOWEST))).log_()
    bins = log_odds.mul_(_BINS_PER_LOG_ODDS).add_(_BINS / 2)
    return bins.clamp_(0, _BINS - 1).long().numpy()


def largest_dice(counts: np.ndarray) -> np.ndarray:
    """(S,) largest E_k, see the module, of a segmentation of each
    structure.

    The candidates are the voxels above an edge of a bin. The best of them is within .001 of the
    best of all segmentations, as measured, since bins are narrow. 0 if all probabilities are below
    .001.

    Args:
        counts: What :func:`count_probabilities` gives.
    """
    voxels, sums = counts
    # By lowest bin in the segmentation, the surest bin first: columns from the last to 1, without
    # column 0, which has the sum of what is below the bins.
    size = voxels[:, :0:-1].cumsum(1)
    common = sums[:, :0:-1].cumsum(1)
    expected_size = sums.sum(1)[:, None]
    dice = 2 * common / np.maximum(expected_size + size, np.finfo(float).tiny)
    return dice.max(1)
