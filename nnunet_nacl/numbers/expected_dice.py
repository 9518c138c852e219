"""Expected Dice of a segmentation, from the probabilities of its voxels, and the segmentation with the highest.

For structure k of a segmentation s with probabilities p,

    E_k = 2 sum_{s = k} p_k / (sum p_k + |s = k|),

the ratio of the expectations of numerator and denominator of Dice. It needs no assumption about how voxels depend on
each other, and is near the expectation of the ratio where the structure is large.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.losses.label_space import LabelSpace
from nnunet_nacl.numbers.binning import AnyArray, check_chunk, parts, read_labels, read_mask, read_probs, where_true

_LOWEST, _BINS = 1e-3, 160
_LOWEST_ODDS = float(np.log(_LOWEST) - np.log1p(-_LOWEST))
_BLOCK_PROBABILITIES = 1 << 18  # that are worked on together: they stay in the cache


@dataclass(frozen=True, eq=False)
class ExpectedOverlap:
    """Sums of a case from which expected Dice and volume follow; ``a + b`` holds those of both sets of voxels.

    Attributes:
        expected: (S,) float64 sum of p_k over all voxels, for each class but the background, or each region.
        chosen: (S,) int64 number of voxels with s = k: the size of the structure in the segmentation.
        common: (S,) float64 sum of p_k over these voxels: the expected size of what both share.
    """

    expected: np.ndarray
    chosen: np.ndarray
    common: np.ndarray

    @property
    def dice(self) -> np.ndarray:
        """(S,) E_k in [0, 1]; NaN for a structure that is absent from the segmentation, whatever the truth has."""
        with np.errstate(invalid="ignore"):
            return np.where(self.chosen > 0, 2 * self.common / (self.expected + self.chosen), np.nan)

    def __add__(self, other: ExpectedOverlap) -> ExpectedOverlap:
        return ExpectedOverlap(self.expected + other.expected, self.chosen + other.chosen, self.common + other.common)


@dataclass(frozen=True, eq=False)
class ProbabilityHistogram:
    """How the probabilities of S structures are distributed; ``a + b`` holds those of both sets of voxels.

    Bins are of equal width in the log-odds from .001 to .999; what is above is in the last bin, what is below in none.

    Attributes:
        expected: (S,) sum of all probabilities.
        counts: (S, B) voxels by bin.
        sums: (S, B) sum of their probabilities.
    """

    expected: np.ndarray
    counts: np.ndarray
    sums: np.ndarray

    @classmethod
    def of(cls, probs: np.ndarray, valid: np.ndarray | None = None) -> ProbabilityHistogram:
        """Of (S, *block) probabilities; voxels where (*block) ``valid`` is False count nowhere."""
        flat, size = probs.reshape(len(probs), -1), len(probs) * _BINS
        keep = None if valid is None else valid.reshape(-1)
        expected, counts, sums = np.zeros(len(flat)), np.zeros(size, np.int64), np.zeros(size)
        for part in _parts(flat):
            chunk = flat[:, part] if keep is None else flat[:, part][:, keep[part]]
            expected += chunk.sum(1, dtype=np.float64)
            rows, columns = np.nonzero(chunk > _LOWEST)
            p = chunk[rows, columns].astype(np.float64)
            odds = np.log(p) - np.log1p(-np.minimum(p, 1 - _LOWEST))
            place = rows * _BINS + np.clip((1 - odds / _LOWEST_ODDS) / 2 * _BINS, 0, _BINS - 1).astype(int)
            counts += np.bincount(place, minlength=size)
            sums += np.bincount(place, p, minlength=size)
        return cls(expected, counts.reshape(-1, _BINS), sums.reshape(-1, _BINS))

    @property
    def largest_dice(self) -> np.ndarray:
        """(S,) largest E_k of the voxels above an edge of a bin, within .001 of the best; 0 if all are below .001."""
        n, common = (values[:, ::-1].cumsum(1) for values in (self.counts, self.sums))
        return (2 * common / np.maximum(self.expected[:, None] + n, np.finfo(float).tiny)).max(1)

    def __add__(self, other: ProbabilityHistogram) -> ProbabilityHistogram:
        return ProbabilityHistogram(self.expected + other.expected, self.counts + other.counts, self.sums + other.sums)


def expected_dice(
    probs: AnyArray, segmentation: AnyArray, *, regions: bool = False, valid: AnyArray | None = None
) -> np.ndarray:
    """(S,) expected Dice of each structure of a segmentation, NaN where it is absent there.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region probabilities; any
            floating type, any device. Sums are float64, in blocks: extra memory does not grow with the image.
        segmentation: (*spatial) label map, 0 to K - 1; of regions (R, *spatial) whether a voxel is in each.
        regions: Whether these are sigmoid regions.
        valid: (*spatial) boolean, False for voxels to leave out, as beside a true Dice those whose truth is ignored.

    Raises:
        ValueError: Shapes do not fit, a label is none of the classes, or probabilities are not probabilities.

    Example:
        >>> probs = np.array([[0.1, 0.4, 0.9], [0.9, 0.6, 0.1]])
        >>> expected_dice(probs, np.array([1, 1, 0])).round(3)  # 2 * 1.5 / (1.6 + 2)
        array([0.833])
    """
    return count_expected(probs, segmentation, regions=regions, valid=valid).dice


def count_expected(
    probs: AnyArray, segmentation: AnyArray, *, regions: bool = False, valid: AnyArray | None = None
) -> ExpectedOverlap:
    """The sums behind :func:`expected_dice`, which has the arguments and errors; all 0 where no voxel is valid."""
    probs = read_probs(probs, regions)
    labels, keep = read_labels(segmentation, probs, LabelSpace(regions))[0], read_mask(valid, "valid", probs)
    first = 0 if regions else 1
    n_structures = len(probs) - first
    sums = ExpectedOverlap(np.zeros(n_structures), np.zeros(n_structures, np.int64), np.zeros(n_structures))
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
        sums += ExpectedOverlap(*(values.cpu().numpy() for values in (expected, sizes, common)))
    return sums


def _parts(flat: AnyArray) -> Iterator[slice]:
    return parts(flat.shape[1], max(1 << 10, _BLOCK_PROBABILITIES // len(flat)))


def _blocks_of(probs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(C, *spatial) probabilities as (C, n) blocks of at least float32, each with its place among the voxels."""
    flat = probs.reshape(len(probs), -1)
    for part in _parts(flat):
        block = flat[:, part]
        yield part, block if block.dtype in (torch.float32, torch.float64) else block.float()


def decide_for_dice(probabilities: AnyArray, *, max_rounds: int = 20) -> np.ndarray:
    """The segmentation s with the largest sum over structures of the expected Dice E_k.

    E_k = 2 sum_{s = k} p_k / den_k with den_k = sum p_k + |s = k| (:mod:`~nnunet_nacl.numbers.expected_dice`). From the
    most probable labels on, each round gives every voxel the class with the largest (2 p_k - E_k) / den_k, 0 for the
    background, E_k and den_k being those of the round before: what the sum grows by, to first order. Such thresholds
    are RankSEG's (Dai and Li, JMLR 24, 2023; Nordström et al., 2023). The iteration can cycle, so it ends on a state
    that it has seen or after ``max_rounds``, and the best state counts: never worse than the most probable labels. A
    structure that these lack stays absent.

    Args:
        probabilities: (K, *spatial) of classes, background first; any floating type, any device.
        max_rounds: Most rounds; 0 gives the most probable labels, the lower class of equals.

    Returns:
        (*spatial) label map, uint8, or uint16 for more than 256 classes. ValueError where probabilities are none.

    Example:
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
        if (total := float(np.nansum(sums.dice))) > most:
            best, most = labels, total
        state = sums.chosen.tobytes() + sums.common.tobytes()  # decides about all further rounds
        if state in seen:
            break
        seen.add(state)
        size = np.where(sums.chosen > 0, sums.expected + sums.chosen, np.inf)
        slope = np.append(0, 2 / size)
        offset = np.append(0, np.where(sums.chosen > 0, -sums.dice / size, -np.inf))
    return best


def _largest(probs: Tensor, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(*spatial) class with the largest slope p + offset."""
    labels = np.empty(probs[0].numel(), np.uint8 if len(probs) <= 256 else np.uint16)
    for part, chunk in _blocks_of(probs):
        scale, shift = (torch.as_tensor(values).to(chunk)[:, None] for values in (slope, offset))
        labels[part] = (chunk * scale + shift).max(0)[1].cpu().numpy()
    return labels.reshape(probs.shape[1:])
