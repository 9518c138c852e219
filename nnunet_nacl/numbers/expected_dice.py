"""Expected Dice of a segmentation, from the probabilities of its voxels, and the segmentation with the highest.

For structure k of a segmentation s with probabilities p,

    E_k = 2 sum_{s = k} p_k / (sum p_k + |s = k|),

the ratio of the expectations of numerator and denominator of Dice. It needs no assumption about how voxels depend on
each other, and is near the expectation of the ratio where the structure is large.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.binning import AnyArray, check_chunk, parts, read_probs, read_tensor, where_true

_LOWEST, _BINS = 1e-3, 160
_LOWEST_ODDS = float(np.log(_LOWEST) - np.log1p(-_LOWEST))
_BLOCK_PROBABILITIES = 1 << 18  # that are worked on together: they stay in the cache

MAX_ROUNDS = 20
Regions = Sequence[int | tuple[int, ...]]
"""The label value or values of each region, or structure."""
_Rule = tuple[np.ndarray, np.ndarray]  # slope and offset of each channel's score


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
    probs: AnyArray, segmentation: AnyArray, *, regions: Regions | None = None, valid: AnyArray | None = None
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
    probs: AnyArray, segmentation: AnyArray, *, regions: Regions | None = None, valid: AnyArray | None = None
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


def _parts(flat: AnyArray) -> Iterator[slice]:
    return parts(flat.shape[1], max(1 << 10, _BLOCK_PROBABILITIES // len(flat)))


def blocks_of(probs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(C, *spatial) probabilities as (C, n) blocks of at least float32, each with its place among the voxels."""
    flat = probs.reshape(len(probs), -1)
    for part in _parts(flat):
        block = flat[:, part]
        yield part, block if block.dtype in (torch.float32, torch.float64) else block.float()


def region_table(regions: Regions, largest_label: int) -> Tensor:
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


def check_probs(probs: Tensor, regions: Regions | None) -> None:
    """ValueError unless ``probs`` have the type and the channels of class or region probabilities."""
    read_probs(probs, regions is not None)
    if regions is not None and len(regions) != len(probs):
        raise ValueError(f"got {len(regions)} regions for {len(probs)} channels of probs; give one for each.")


def decide_for_dice(
    probabilities: AnyArray,
    *,
    regions: Regions | None = None,
    region_labels: Sequence[int] | None = None,
    max_rounds: int = MAX_ROUNDS,
) -> np.ndarray:
    """The segmentation s with the largest sum over structures of the expected Dice E_k.

    E_k = 2 sum_{s = k} p_k / den_k with den_k = sum p_k + |s = k| (:mod:`~nnunet_nacl.numbers.expected_dice`). From the
    most probable labels on, each round gives every voxel the class with the largest (2 p_k - E_k) / den_k, 0 for the
    background, E_k and den_k being those of the round before: what the sum grows by, to first order. Such thresholds
    are RankSEG's (Dai and Li, JMLR 24, 2023; Nordström et al., 2023). The iteration can cycle, so it ends on a state
    that it has seen or after ``max_rounds``, and the best state counts: never worse than the most probable labels. A
    structure that these lack stays absent.

    Regions: each is decided by itself, in where p_r > E_r / 2; then they are painted in nnU-Net's order, and states are
    compared by the E_r of what is painted. Every voxel is decided, and the ignore label is never the result.

    Args:
        probabilities: (K, *spatial) of classes, background first, or (R, *spatial) of regions; any floating type.
        regions: The label value or values of each region; None for classes.
        region_labels: With regions, the label that each paints with: nnU-Net's ``regions_class_order``.
        max_rounds: Most rounds; 0 gives the most probable labels, the lower class of equals.

    Returns:
        (*spatial) label map, uint8, or uint16 for labels above 255. ValueError where shapes do not fit, there is no
        voxel, or probabilities are none.

    Example:
        >>> probs = np.array([[0.6, 0.6, 0.1, 0.9], [0.4, 0.4, 0.9, 0.1]])  # E_1 is 2 * 0.9 / (1.8 + 1) = 0.64
        >>> decide_for_dice(probs)  # so 0.4 is enough, which makes it 2 * 1.7 / (1.8 + 3) = 0.71
        array([1, 1, 1, 0], dtype=uint8)
    """
    probs = torch.as_tensor(probabilities).detach()
    check_probs(probs, regions)
    if len(regions or ()) != len(region_labels or ()):
        raise ValueError(f"give each region the label that it paints with, got {regions} and {region_labels}.")
    if not probs.numel():
        raise ValueError(f"probs must hold voxels, got {tuple(probs.shape)}.")
    paint = [int(label) for label in region_labels or ()]
    table = None if regions is None else region_table(regions, max(paint))
    expected = np.zeros(len(probs) - (regions is None))
    for _, chunk in blocks_of(probs):
        check_chunk(chunk, regions is not None)
        expected += chunk[-len(expected) :].sum(1, dtype=torch.float64).cpu().numpy()
    rule: _Rule = np.ones(len(probs)), np.full(len(probs), -0.5 if paint else 0.0)
    best, most, seen, at_first = rule, -1.0, set[bytes](), np.ones(len(expected), bool)
    for _ in range(max_rounds + 1):
        separate, painted = _overlaps(probs, rule, expected, paint, table)
        at_first = at_first if seen else painted.chosen > 0
        total = float(np.nansum(painted.dice))
        if total > most and not painted.chosen[~at_first].any():  # nor does it appear under what another region gave up
            best, most = rule, total
        state = separate.chosen.tobytes() + separate.common.tobytes()  # decides about all further rounds
        if state in seen:
            break
        seen.add(state)
        rule = _next(separate, (separate.chosen > 0) & (painted.chosen > 0), bool(paint))
    result = np.empty(probs[0].numel(), np.uint8 if max(len(probs) - 1, *paint, 0) <= 255 else np.uint16)
    for part, chunk in blocks_of(probs):
        result[part] = _label(chunk, best, paint)[0].cpu().numpy()
    return result.reshape(probs.shape[1:])


def _next(overlap: ExpectedOverlap, present: np.ndarray, regions: bool) -> _Rule:
    """What the following round takes; an absent structure is kept out, which every voxel would gain by joining."""
    if regions:
        return np.ones(len(present)), np.where(present, -overlap.dice / 2, -np.inf)
    size = np.where(present, overlap.expected + overlap.chosen, np.inf)
    return np.append(0, 2 / size), np.append(0, np.where(present, -overlap.dice / size, -np.inf))


def _label(chunk: Tensor, rule: _Rule, paint: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(n,) labels: class of the largest score, or last region with one above 0; and (C, n) whether it is above 0."""
    slope, offset = (torch.as_tensor(values, dtype=chunk.dtype, device=chunk.device)[:, None] for values in rule)
    scores = chunk * slope + offset
    if not paint:
        return scores.max(0)[1], scores > 0
    labels = torch.zeros(chunk.shape[1], dtype=torch.int64, device=chunk.device)
    for inside, label in zip(scores > 0, paint):
        labels.masked_fill_(inside, label)
    return labels, scores > 0


def _overlaps(
    probs: Tensor, rule: _Rule, expected: np.ndarray, paint: Sequence[int], table: Tensor | None
) -> tuple[ExpectedOverlap, ExpectedOverlap]:
    """Sums of the structures that a rule leads to: of each region by itself, and of what is painted."""
    nothing = np.zeros_like(expected)
    separate = painted = ExpectedOverlap(expected, np.zeros(len(expected), np.int64), nothing)
    for _, chunk in blocks_of(probs):
        labels, inside = _label(chunk, rule, paint)
        painted += ExpectedOverlap(nothing, *sum_inside(chunk, labels, table))
        if paint:
            sums = inside.sum(1), (chunk * inside).sum(1, dtype=torch.float64)
            separate += ExpectedOverlap(nothing, *(values.cpu().numpy() for values in sums))
    return separate if paint else painted, painted
