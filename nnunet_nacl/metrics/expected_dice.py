"""Expected Dice of a segmentation, from the probabilities of its voxels, and the segmentation with
the highest.

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
from nnunet_nacl.metrics.binning import (
    AnyArray,
    check_chunk,
    parts,
    read_labels,
    read_mask,
    read_probs,
    where_true,
)

_LOWEST, _BINS = 1e-3, 160
_LOWEST_ODDS = float(np.log(_LOWEST) - np.log1p(-_LOWEST))
_BLOCK_PROBABILITIES = 1 << 18  # that are worked on together: they stay in the cache


def count_probabilities(probs: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """(2, S, 1 + B) voxels by bin, and the sums of their probabilities, of (S, *block)
    probabilities.

    Bins are of equal width in the log-odds from .001 to .999; what is above is in the last one. Of
    what is below, the first has the sum alone. Voxels where (*block) ``valid`` is False count
    nowhere. Those of two blocks can be added.
    """
    flat = probs.reshape(len(probs), -1)
    keep = None if valid is None else valid.ravel()
    counted = np.zeros((2, len(flat), 1 + _BINS))
    for structure, row in enumerate(flat):
        total = 0.0
        for part in parts(len(row), _BLOCK_PROBABILITIES):
            chunk = row[part] if keep is None else row[part][keep[part]]
            total += chunk.sum(dtype=np.float64)
            likely = chunk[np.flatnonzero(chunk > _LOWEST)].astype(np.float64)
            bins = 1 + _log_odds_bins(likely)
            counted[0, structure] += np.bincount(bins, minlength=1 + _BINS)
            counted[1, structure] += np.bincount(bins, likely, minlength=1 + _BINS)
        counted[1, structure, 0] = max(total - counted[1, structure].sum(), 0)  # but for rounding
    return counted


def _log_odds_bins(probs: np.ndarray) -> np.ndarray:
    """(n,) bins, from 0, of (n,) float64 probabilities above ``_LOWEST``."""
    p = torch.from_numpy(probs)  # whose logarithm is the faster one on most processors
    log_odds = p.log() - (1 - p.clamp_max(1 - _LOWEST)).log_()
    bins = (1 - log_odds / _LOWEST_ODDS) / 2 * _BINS
    return bins.clamp_(0, _BINS - 1).numpy().astype(np.intp)


def largest_dice(counted: np.ndarray) -> np.ndarray:
    """(S,) largest E_k of the voxels above an edge of a bin, within .001 of the best; 0 if all are
    below .001.

    Of what :func:`count_probabilities` gives.
    """
    n, common = counted[:, :, :0:-1].cumsum(2)
    return (2 * common / np.maximum(counted[1].sum(1)[:, None] + n, np.finfo(float).tiny)).max(1)


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
    """(3, S) sums behind :func:`expected_dice`, which has the arguments and errors; those of two
    blocks can be added.

    Of p_k over all voxels, for each class but the background, or each region; the number of voxels
    with s = k, the size of the structure in the segmentation; and of p_k over these, the expected
    size of what both share.
    """
    probs = read_probs(probs, regions)
    labels, keep = (
        read_labels(segmentation, probs, LabelSpace(regions))[0],
        read_mask(valid, "valid", probs),
    )
    first = 0 if regions else 1
    sums = np.zeros((3, len(probs) - first))
    for part, chunk in _blocks_of(probs):
        chosen = labels[..., part]
        if keep is not None:
            where = where_true(keep[part])
            chunk, chosen = chunk.index_select(1, where), chosen.index_select(-1, where)
        if not chunk.shape[1]:
            continue
        check_chunk(chunk, regions)
        if regions:
            sizes, common = chosen.sum(1), (chunk * chosen).sum(1, dtype=torch.float64)
        else:
            where = where_true(chosen != 0)  # most voxels of an image are background
            label = chosen.index_select(0, where).long()
            sizes = torch.bincount(label, minlength=len(chunk))[1:]
            common = torch.bincount(label, chunk[label, where].double(), minlength=len(chunk))[1:]
        expected = chunk[first:].sum(1, dtype=torch.float64)
        sums += [values.cpu().numpy() for values in (expected, sizes, common)]
    return sums


def dice_of(sums: np.ndarray) -> np.ndarray:
    """(S,) E_k in [0, 1], of (3, S) sums; NaN for a structure that is absent from the
    segmentation."""
    expected, size, common = sums
    return np.divide(2 * common, expected + size, out=np.full(len(size), np.nan), where=size > 0)


def _parts(flat: AnyArray) -> Iterator[slice]:
    return parts(flat.shape[1], max(1 << 10, _BLOCK_PROBABILITIES // len(flat)))


def _blocks_of(probs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(C, *spatial) probabilities as (C, n) blocks of at least float32, each with its place among
    the voxels."""
    flat = probs.reshape(len(probs), -1)
    for part in _parts(flat):
        block = flat[:, part]
        yield part, block if block.dtype in (torch.float32, torch.float64) else block.float()


def decide_for_dice(probabilities: AnyArray, *, max_rounds: int = 20) -> np.ndarray:
    """The segmentation s with the largest sum over structures of the expected Dice E_k.

    E_k = 2 sum_{s = k} p_k / den_k with den_k = sum p_k + |s = k|
    (:mod:`~nnunet_nacl.metrics.expected_dice`). From the most probable labels on, each round gives
    every voxel the class with the largest (2 p_k - E_k) / den_k, 0 for the background, E_k and
    den_k being those of the round before: what the sum grows by, to first order. Such thresholds
    are RankSEG's (Dai and Li, JMLR 24, 2023; Nordström et al., 2023). The iteration can cycle, so
    it ends on a state that it has seen or after ``max_rounds``, and the best state counts: never
    worse than the most probable labels. A structure that these lack stays absent.

    Args:
        probabilities: (K, *spatial) of classes, background first; any floating type, any device.
        max_rounds: Most rounds; 0 gives the most probable labels, the lower class of equals.

    Returns:
        (*spatial) label map, uint8, or uint16 for more than 256 classes. ValueError where
        probabilities are none.

    Examples:
        >>> probs = np.array([[0.6, 0.6, 0.1, 0.9], [0.4, 0.4, 0.9, 0.1]])  # E_1 is 2 * 0.9 / (1.8 + 1) = 0.64
        >>> decide_for_dice(probs)  # so 0.4 is enough, which makes it 2 * 1.7 / (1.8 + 3) = 0.71
        array([1, 1, 1, 0], dtype=uint8)
    """
    probs = read_probs(probabilities, False)
    slope, offset = np.ones(len(probs)), np.zeros(len(probs))
    best, most, seen = np.empty(0), -1.0, set[bytes]()
    for _ in range(max_rounds + 1):
        labels = _largest(probs, slope, offset)
        sums = count_expected(probs, labels)
        dice = dice_of(sums)
        if (total := float(np.nansum(dice))) > most:
            best, most = labels, total
        if (state := sums.tobytes()) in seen:  # it decides about all further rounds
            break
        seen.add(state)
        size = np.where(sums[1] > 0, sums[0] + sums[1], np.inf)
        slope, offset = (
            np.append(0, 2 / size),
            np.append(0, np.where(sums[1] > 0, -dice / size, -np.inf)),
        )
    return best


def _largest(probs: Tensor, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(*spatial) class with the largest slope p + offset."""
    labels = np.empty(probs[0].numel(), np.uint8 if len(probs) <= 256 else np.uint16)
    for part, chunk in _blocks_of(probs):
        scale, shift = (torch.as_tensor(values).to(chunk)[:, None] for values in (slope, offset))
        labels[part] = (chunk * scale + shift).max(0)[1].cpu().numpy()
    return labels.reshape(probs.shape[1:])
