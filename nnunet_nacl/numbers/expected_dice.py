"""Expected Dice: the overlap that a segmentation can expect with a truth of which only the probabilities are known.

For structure k of a segmentation s with probabilities p,

    E_k = 2 sum_{s = k} p_k / (sum p_k + |s = k|),

the ratio of the expectations of numerator and denominator of Dice. It needs no assumption about how voxels depend on
each other, and is near the expectation of the ratio where the structure is large. This is the only definition of the
expected Dice in the package: what decides, what ranks cases and what is learned from it take it from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.binning import check_chunk, parts, read_probs, read_tensor, where_true

_LOWEST, _BINS = 1e-3, 160
_LOWEST_ODDS = float(np.log(_LOWEST) - np.log1p(-_LOWEST))
_BLOCK_PROBABILITIES = 1 << 18  # that are worked on together: they stay in the cache


@dataclass(frozen=True, eq=False)
class ExpectedOverlap:
    """Sums of a case from which expected Dice and volume follow; ``a + b`` holds those of both sets of voxels.

    The S structures are the K - 1 classes without the background, or the R regions.

    Attributes:
        expected: (S,) float64 sum of p_k over all voxels: the expected size of the structure in voxels.
        chosen: (S,) int64 number of voxels with s = k: its size in the segmentation.
        common: (S,) float64 sum of p_k over these voxels: the expected size of what both share.
    """

    expected: np.ndarray
    chosen: np.ndarray
    common: np.ndarray

    @property
    def dice(self) -> np.ndarray:
        """(S,) E_k in [0, 1]; NaN for a structure that is absent from the segmentation.

        Its true Dice is 0 where the truth has it and undefined where not, and no number can stand for both. Whether
        something was missed is what ``expected`` tells.
        """
        with np.errstate(invalid="ignore"):
            return np.where(self.chosen > 0, 2 * self.common / (self.expected + self.chosen), np.nan)

    def __add__(self, other: ExpectedOverlap) -> ExpectedOverlap:
        return ExpectedOverlap(self.expected + other.expected, self.chosen + other.chosen, self.common + other.common)


@dataclass(frozen=True, eq=False)
class ProbabilityHistogram:
    """How the probabilities of S structures are distributed; ``a + b`` holds those of both sets of voxels.

    Bins are of equal width in the log-odds, from a probability of .001 to one of .999; what is above is in the last
    bin, what is below in none.

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
        """(S,) the largest E_k of the voxels above any edge of a bin; 0 where all are below .001.

        E_k changes little around its best threshold, so that it is missed by less than .001.
        """
        n, common = (values[:, ::-1].cumsum(1) for values in (self.counts, self.sums))
        return (2 * common / np.maximum(self.expected[:, None] + n, np.finfo(float).tiny)).max(1)

    def __add__(self, other: ProbabilityHistogram) -> ProbabilityHistogram:
        return ProbabilityHistogram(self.expected + other.expected, self.counts + other.counts, self.sums + other.sums)


def expected_dice(
    probs: Tensor | np.ndarray,
    segmentation: Tensor | np.ndarray,
    *,
    regions: Sequence[int | tuple[int, ...]] | None = None,
    valid: Tensor | np.ndarray | None = None,
) -> np.ndarray:
    """(S,) expected Dice of each structure of a segmentation, NaN where it is absent there.

    Args:
        probs: (K, *spatial) class probabilities, background first, or (R, *spatial) region probabilities; any
            floating type, any device. Sums are float64, in blocks: extra memory does not grow with the image.
        segmentation: (*spatial) integer label map: 0 to K - 1; of regions, each is where one of its values stands.
        regions: The label value or values of each region; None for classes.
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
    probs: Tensor | np.ndarray,
    segmentation: Tensor | np.ndarray,
    *,
    regions: Sequence[int | tuple[int, ...]] | None = None,
    valid: Tensor | np.ndarray | None = None,
) -> ExpectedOverlap:
    """The sums behind :func:`expected_dice`, which has the arguments and errors; all 0 where no voxel is valid."""
    probs, segmentation = torch.as_tensor(probs).detach(), read_tensor(segmentation, "segmentation")
    check_probs(probs, regions)
    spatial = tuple(probs.shape[1:])
    shapes = [tuple(array.shape) for array in (segmentation, valid) if array is not None]
    if set(shapes) != {spatial}:
        got = " and ".join(map(str, shapes))
        raise ValueError(f"segmentation and valid must have the spatial shape of probs, {spatial}, got {got}.")
    if segmentation.is_floating_point():
        raise ValueError(f"segmentation must hold integer labels, got {segmentation.dtype}.")
    low, high = (int(x) for x in torch.aminmax(segmentation)) if segmentation.numel() else (0, 0)
    if low < 0 or (regions is None and high >= len(probs)):
        most = "the largest label value" if regions is not None else len(probs) - 1
        raise ValueError(f"segmentation holds the label {low if low < 0 else high}, expected 0 to {most}.")
    flat, table = segmentation.reshape(-1), None if regions is None else region_table(regions, high)
    keep = None if valid is None else torch.as_tensor(valid).to(probs.device).reshape(-1)
    n_structures = len(probs) - (regions is None)
    sums = ExpectedOverlap(np.zeros(n_structures), np.zeros(n_structures, np.int64), np.zeros(n_structures))
    for part, chunk in blocks_of(probs):
        labels = flat[part].to(probs.device).long()
        if keep is not None:
            where = where_true(keep[part])
            chunk, labels = chunk.index_select(1, where), labels.index_select(0, where)
        if chunk.shape[1]:
            check_chunk(chunk, regions is not None)
            expected = chunk.sum(1, dtype=torch.float64).cpu().numpy()[-n_structures:]
            sums += ExpectedOverlap(expected, *sum_inside(chunk, labels, table))
    return sums


def _parts(flat: Tensor | np.ndarray) -> Iterator[slice]:
    return parts(flat.shape[1], max(1 << 10, _BLOCK_PROBABILITIES // len(flat)))


def blocks_of(probs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(C, *spatial) probabilities as (C, n) blocks of at least float32, each with its place among the voxels."""
    flat = probs.reshape(len(probs), -1)
    for part in _parts(flat):
        block = flat[:, part]
        yield part, block if block.dtype in (torch.float32, torch.float64) else block.float()


def region_table(regions: Sequence[int | tuple[int, ...]], largest_label: int) -> Tensor:
    """(R, labels) booleans: whether a region holds a label value; label maps are looked up in it."""
    values = [np.atleast_1d(value).tolist() for value in regions]
    table = torch.zeros(len(values), 1 + max(largest_label, *map(max, values)), dtype=torch.bool)
    for row, inside in zip(table, values):
        row[inside] = True
    return table


def sum_inside(chunk: Tensor, labels: Tensor, table: Tensor | None) -> tuple[np.ndarray, np.ndarray]:
    """(S,) int64 sizes of the structures in a block, and (S,) float64 sums of their probabilities there.

    Of (C, n) probabilities and an (n,) int64 label map; ``table``: see :func:`region_table`, None for classes.
    """
    where = where_true(labels != 0)  # most voxels of an image are background
    labels = labels.index_select(0, where)
    if table is None:
        sizes = torch.bincount(labels, minlength=len(chunk))[1:]
        sums = torch.bincount(labels, chunk[labels, where].double(), minlength=len(chunk))[1:]
    else:
        inside = table.to(labels.device).index_select(1, labels)
        sizes, sums = inside.sum(1), (chunk.index_select(1, where) * inside).sum(1, dtype=torch.float64)
    return sizes.cpu().numpy(), sums.cpu().numpy()


def check_probs(probs: Tensor, regions: Sequence[int | tuple[int, ...]] | None) -> None:
    """ValueError unless ``probs`` have the type and the channels of class or region probabilities."""
    read_probs(probs, regions is not None)
    if regions is not None and len(regions) != len(probs):
        raise ValueError(f"got {len(regions)} regions for {len(probs)} channels of probs; give one for each.")
