"""Expected Dice of a segmentation, from the probabilities of its voxels.

For structure k of a segmentation s with probabilities p,

    E_k = 2 sum_{s = k} p_k / (sum p_k + |s = k|),

the ratio of the expectations of numerator and denominator of Dice. It needs no assumption about how
voxels depend on each other, and is near the expectation of the ratio where the structure is large.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    split_range,
)

_BLOCK_PROBABILITIES = 1 << 18  # that are worked on together: they stay in the cache
_FEWEST_VOXELS = 1 << 10  # of a block


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
    return dice_of(count_expected(probs, segmentation, regions=regions, valid=valid))


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
    for part, block in blocks_of(probs):
        block_labels = labels[..., part]
        if flat_valid is not None:
            kept = find_true(flat_valid[part])
            block = block.index_select(1, kept)
            block_labels = block_labels.index_select(-1, kept)
        if not block.shape[1]:
            continue
        check_probabilities(block, regions)
        if regions:
            block_sums = _sum_regions(block, block_labels)
        else:
            block_sums = _sum_classes(block, block_labels)
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


def dice_of(sums: np.ndarray) -> np.ndarray:
    """(S,) E_k in [0, 1], of (3, S) sums; NaN for a structure that is absent from the
    segmentation."""
    expected, size, common = sums
    return np.divide(2 * common, expected + size, out=np.full(len(size), np.nan), where=size > 0)


def blocks_of(probs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(C, *spatial) probabilities as (C, n) blocks of at least float32, each with its place among
    the voxels."""
    flat = probs.reshape(len(probs), -1)
    block_voxels = max(_FEWEST_VOXELS, _BLOCK_PROBABILITIES // len(flat))
    for part in split_range(flat.shape[1], block_voxels):
        block = flat[:, part]
        if block.dtype not in (torch.float32, torch.float64):
            block = block.float()
        yield part, block
