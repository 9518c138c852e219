"""A weighted sample of a case's voxels: calibration is fitted to it without probabilities.

Voxels fall into strata by the label that the network chose, how uncertain they are (1 - largest
probability, by powers of ten) and whether they are right. Half of the budget is shared evenly, so
that uncertain and wrong voxels, which decide a fit, are drawn densely, often all of them; half in
proportion to what a stratum adds to the error of sums of probabilities (Neyman 1934). A stratum
that has fewer voxels leaves the rest to the others. Each voxel drawn stands for as many as its
stratum has for each drawn (inverse-probability weights; Horvitz and Thompson 1952), which makes
every sum over voxels unbiased, although the truth helped to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from nnunet_nacl.cases.probabilities import CaseProbabilities, SavedProbabilities
from nnunet_nacl.estimators.voxels import Voxels

MASK_BITS = ("dilated", "boundary", "near")
"""Bits of a voxel's masks, lowest first; the other masks follow from its truth and its label."""

_DECADES = 6  # uncertainty 1 .. 1e-6
_PART_VOXELS = 1 << 13  # voxels whose log-odds stay in the cache
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, eq=False)
class Sample:
    """Voxels drawn from one case.

    n voxels are drawn from S strata; m is the number of structures, and V the number of pairs of
    target and masks that occur outside the crop.

    Attributes:
        log_odds: (m, n) float16, against the background, or in against out of each region.
        target: (n,) true class, or for regions the integer whose bit r says whether the voxel lies
            in region r.
        label: (n,) most probable class, or the integer of the regions that are predicted.
        masks: (n,) uint8, see :data:`MASK_BITS`.
        stratum: (n,) stratum of each voxel.
        drawn_of: (S, 2) voxels drawn and voxels in the case, for each stratum.
        outside: (V, 3) target, masks and number of the voxels outside nnU-Net's crop, which the
            network did not see.
        regions: Whether the structures are regions.

    Raises:
        ValueError: The arrays do not belong together.
    """

    log_odds: np.ndarray
    target: np.ndarray
    label: np.ndarray
    masks: np.ndarray
    stratum: np.ndarray
    drawn_of: np.ndarray
    outside: np.ndarray
    regions: bool

    def __post_init__(self) -> None:
        if not (self._has_shapes() and self._has_possible_values()):
            raise ValueError("the arrays of the sample do not belong together")

    def _has_shapes(self) -> bool:
        """Whether arrays have the shapes and types that the class says."""
        values_of_voxels = (self.target, self.label, self.masks, self.stratum)
        tables = (self.drawn_of, self.outside)
        return (
            self.log_odds.ndim == 2
            and self.log_odds.dtype == np.float16
            and all(values.shape == self.log_odds.shape[1:] for values in values_of_voxels)
            and [table.shape[1:] for table in tables] == [(2,), (3,)]
            and all(values.dtype.kind in "iu" for values in (*values_of_voxels, *tables))
        )

    def _has_possible_values(self) -> bool:
        """Whether numbers are finite and not below 0, and classes, regions and strata exist."""
        largest_code = (1 << len(self.log_odds)) - 1 if self.regions else len(self.log_odds)
        codes = (self.target, self.label, self.outside[:, 0])
        integers = (*codes, self.masks, self.stratum, self.drawn_of, self.outside)
        return bool(
            np.isfinite(self.log_odds).all()
            and all((values >= 0).all() for values in integers)
            and all((values <= largest_code).all() for values in codes)
            and (self.stratum < len(self.drawn_of)).all()
        )

    @property
    def num_structures(self) -> int:
        """m."""
        return len(self.log_odds)

    @property
    def weights(self) -> np.ndarray:
        """(n,) how many voxels of the case each drawn one stands for."""
        drawn, present = self.drawn_of.astype(np.float64).T
        weight_of_stratum = present / np.maximum(drawn, 1)
        return weight_of_stratum[self.stratum]

    def voxels(self) -> Voxels:
        """The voxels with their weights, for a fit."""
        return Voxels(
            torch.from_numpy(self.log_odds.astype(np.float32)),
            torch.from_numpy(self.unpacked(self.label)),
            torch.from_numpy(self.unpacked(self.target)),
            torch.from_numpy(self.weights),
        )

    def unpacked(self, codes: np.ndarray) -> np.ndarray:
        """(n,) classes, or (m, n) whether voxels are in each region, of (n,) labels or targets."""
        if not self.regions:
            return codes.astype(np.int64)
        bit_of_region = np.arange(self.num_structures, dtype=codes.dtype)[:, None]
        inside = codes >> bit_of_region & codes.dtype.type(1)
        return inside.astype(np.uint8)


def most_bytes(num_channels: int) -> int:
    """Size of a sample's arrays at most: 60 kB for each channel, 800 kB for all.

    Less what a file needs beside them.
    """
    return min(60_000 * num_channels, 800_000) - 4096


def draw_sample(
    probabilities: CaseProbabilities,
    target: np.ndarray,
    *,
    valid: np.ndarray | None = None,
    around: Mapping[str, np.ndarray] | None = None,
    near: Callable[[np.ndarray], np.ndarray] | None = None,
    limit_bytes: int | None = None,
    seed: int = 0,
) -> Sample:
    """Draw voxels of one case without replacement within strata.

    Its log-odds pass by twice, a block at a time.

    Args:
        probabilities: Of the case, as the network gave them.
        target: (*spatial) true class; of regions the integer whose bit r says whether the voxel
            lies in region r.
        valid: (*spatial) False where the truth is ignored; such voxels are not drawn. None: nothing
            is ignored.
        around: (*spatial) masks by name; no voxel is in one that is missing.
        near: Makes the mask ``near`` of the (*spatial) voxels that the network predicted.
        limit_bytes: Size of the arrays at most; None: :func:`most_bytes`.
        seed: Of the draw.

    Raises:
        ValueError: The network saw no voxel that has a truth.
    """
    regions = probabilities.regions
    label, stratum = _find_strata(probabilities, target)
    seen = np.zeros(target.shape, bool)
    if probabilities.crop is not None:
        seen[probabilities.crop] = True
    not_seen = ~seen
    if valid is not None:
        seen &= valid
        not_seen &= valid
    if not seen.any():
        raise ValueError(
            "nothing but certain background, or nothing with a ground truth; leave this case out."
        )
    masks = {name: np.zeros(target.shape, bool) for name in MASK_BITS} | dict(around or {})
    if near is not None:
        masks["near"] = near(label != 0)
    mask_bits = pack((masks[name] for name in MASK_BITS), len(MASK_BITS))

    if limit_bytes is None:
        limit_bytes = most_bytes(probabilities.num_channels)
    num_structures = probabilities.num_channels if regions else probabilities.num_channels - 1
    # log-odds; target and label; masks (one byte) and stratum (two)
    bytes_per_voxel = 2 * num_structures + 2 * target.itemsize + 3
    stratum_of_seen = stratum[seen]
    present = np.bincount(stratum_of_seen, minlength=1)
    wanted = _shares(present, limit_bytes // bytes_per_voxel)
    is_drawn = np.zeros(target.shape, bool)
    is_drawn[seen] = _draw(stratum_of_seen, wanted, seed)
    return Sample(
        log_odds=_log_odds_of(probabilities, is_drawn),
        target=target[is_drawn],
        label=label[is_drawn],
        masks=mask_bits[is_drawn],
        stratum=stratum[is_drawn],
        drawn_of=np.stack([wanted, present], 1),
        outside=_count_kinds(target[not_seen], mask_bits[not_seen]),
        regions=regions,
    )


def _find_strata(
    probabilities: CaseProbabilities, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(*spatial) label that the network chose, in the form of ``target``, and stratum.

    Both are 0 outside the network's crop.
    """
    label = np.zeros(target.shape, target.dtype)
    stratum = np.zeros(target.shape, np.uint16)
    for where, odds in probabilities.odds_blocks():
        chosen = _labels(odds, probabilities.regions).astype(target.dtype)
        strata = _strata(
            odds.flatten(1), chosen.ravel(), target[where].ravel(), probabilities.regions
        )
        label[where] = chosen
        stratum[where] = strata.reshape(chosen.shape)
    return label, stratum


def _draw(stratum: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """(n,) whether a voxel is drawn, by its stratum and how many are ``wanted`` of each."""
    rng = np.random.default_rng(seed)
    is_drawn = np.zeros(len(stratum), bool)
    for number in np.flatnonzero(wanted).tolist():
        in_stratum = np.flatnonzero(stratum == number)
        chosen = rng.choice(len(in_stratum), wanted[number], replace=False)
        is_drawn[in_stratum[chosen]] = True
    return is_drawn


def _log_odds_of(probabilities: CaseProbabilities, is_drawn: np.ndarray) -> np.ndarray:
    """(m, n) float16 log-odds of the voxels that are drawn."""
    drawn = [
        odds[:, torch.from_numpy(is_drawn[where])] for where, odds in probabilities.odds_blocks()
    ]
    # those of probabilities do not exceed 88, but those of logits can be beyond half precision
    return torch.cat(drawn, 1).clamp(-_LARGEST, _LARGEST).numpy().astype(np.float16)


def _count_kinds(target: np.ndarray, mask_bits: np.ndarray) -> np.ndarray:
    """(V, 3) target, masks and number of voxels, for each pair of target and masks that occurs."""
    n_bits = len(MASK_BITS)
    codes = pd.Series(target.astype(np.int64) << n_bits | mask_bits)
    counts = codes.value_counts().sort_index()
    kinds = counts.index.to_numpy()
    masks_of_kinds = kinds & (1 << n_bits) - 1
    return np.stack([kinds >> n_bits, masks_of_kinds, counts.to_numpy()], 1)


def sample_arrays(probs: np.ndarray, labels: np.ndarray, regions: bool) -> Sample:
    """A sample of the arrays that `CalibrationMap.fit` takes.

    ValueError where shapes or labels do not fit, or there is nothing but certain background.
    """
    if regions:
        expected = probs.shape
        highest = 1
    else:
        expected = probs.shape[1:]
        highest = len(probs) - 1
    if labels.dtype.kind not in "biuf":
        raise ValueError(f"labels must be numbers, got an array of {labels.dtype}.")
    if labels.dtype.kind == "f" and (labels != np.rint(labels)).any():  # NaN is not equal to itself
        not_whole = labels[labels != np.rint(labels)][0]
        raise ValueError(
            f"labels must be whole numbers from 0 to {highest}, got {not_whole:g}; a fit needs the"
            " label of every voxel: leave out cases without it."
        )
    lowest_label, highest_label = labels.min(initial=0), labels.max(initial=0)
    if labels.shape != expected or lowest_label < 0 or highest_label > highest:
        raise ValueError(
            f"labels must have the shape {expected} and values from 0 to {highest}, got"
            f" {labels.shape} with {lowest_label} to {highest_label}."
        )
    if regions:
        target = pack(labels.astype(bool), len(labels))
    else:
        target = labels.astype(class_type(len(probs)))
    return draw_sample(SavedProbabilities(probs, regions), target)


def class_type(num_classes: int) -> type[np.unsignedinteger]:
    """The type in which classes are kept, of which there are so many with the background."""
    return np.uint8 if num_classes <= 256 else np.uint16


def _labels(odds: Tensor, regions: bool) -> np.ndarray:
    """(*block) what the network chose, by (m, *block) log-odds: the lower one of equal classes."""
    if regions:
        return pack((odds > 0).numpy(), len(odds))
    largest, structure = odds.max(0)
    return torch.where(largest > 0, structure + 1, 0).numpy()


def _strata(odds: Tensor, label: np.ndarray, target: np.ndarray, regions: bool) -> np.ndarray:
    """(n,) stratum of voxels: chosen label, decade of their uncertainty, whether they are right.

    Its number is 2 * ((_DECADES + 1) * chosen + decade), and one more where the voxel is right.
    ``chosen`` is the label; of regions it only says whether the voxel was found in any.

    Args:
        odds: (m, n) log-odds.
        label: (n,) what the network chose.
        target: (n,) what is true.
        regions: Whether the structures are regions.
    """
    decades = []
    for part in odds.split(_PART_VOXELS, 1):
        uncertainty = _uncertainty(part, regions).numpy()
        decades.append(np.floor(-np.log10(np.maximum(uncertainty, 1e-30))))
    decade = np.clip(np.concatenate(decades), 0, _DECADES).astype(np.uint16)
    if regions:
        chosen = (label != 0).astype(np.uint16)
    else:
        chosen = label.astype(np.uint16)
    return 2 * ((_DECADES + 1) * chosen + decade) + (label == target)


def _uncertainty(odds: Tensor, regions: bool) -> Tensor:
    """(n,) 1 - largest probability, by (m, n) log-odds; of regions that of the least certain."""
    if regions:
        return torch.sigmoid(-odds.abs()).amax(0)
    # The background's log-odds are 0, so it is the most probable one where all others are below.
    # Terms are relative to the most probable class, whose own term is 1 and is taken off again.
    largest = odds.amax(0)
    top = largest.clamp_min(0)
    others = (odds - top).exp_().sum(0) + (-top).exp() - 1
    return others / (1 + others)


def _shares(present: np.ndarray, budget: int) -> np.ndarray:
    """(S,) how many voxels to draw of each stratum.

    Of each one, if the budget has so many; the rest half evenly, half as said at the top. None gets
    more than it has; what that leaves is shared again.

    Args:
        present: (S,) voxels of each stratum in the case.
        budget: Voxels in all.
    """
    shares = (
        np.minimum(present, 1) if np.count_nonzero(present) <= budget else np.zeros_like(present)
    )
    decade = np.arange(len(present)) // 2 % (_DECADES + 1)  # see _strata
    # Neyman: voxels times their standard deviation, which is the root of their uncertainty
    neyman_weight = present * 10.0 ** (-decade / 2)
    while True:
        left = budget - int(shares.sum())
        has_more = shares < present
        if left <= 0 or not has_more.any():
            return shares
        neyman_share = neyman_weight / max(neyman_weight[has_more].sum(), 1e-30)
        even_share = 1 / has_more.sum()
        share_of_rest = has_more * (neyman_share + even_share) / 2
        more = np.minimum(np.floor(left * share_of_rest).astype(np.int64), present - shares)
        if not more.any():
            return shares
        shares += more


def pack(inside: Iterable[np.ndarray], num: int) -> np.ndarray:
    """``num`` boolean arrays of one shape as integers, the first in bit 0."""
    dtype = np.min_scalar_type((1 << num) - 1)
    packed = np.zeros((), dtype)
    for bit, mask in enumerate(inside):
        packed = packed | mask.astype(dtype) << dtype.type(bit)
    return packed
