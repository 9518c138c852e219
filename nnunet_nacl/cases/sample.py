"""A weighted sample of the voxels of a case, from which calibration is fitted when the
probabilities are deleted.

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

from nnunet_nacl.calibration.voxels import Voxels
from nnunet_nacl.cases.probabilities import CaseProbabilities, SavedProbabilities

MASK_BITS = ("dilated", "boundary", "near")
"""Bits of a voxel's masks, lowest first; the other masks follow from its truth and its label."""

_DECADES = 6  # uncertainty 1 .. 1e-6
_PIECE = 1 << 13  # voxels whose log-odds stay in the cache
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True, eq=False)
class Sample:
    """Voxels drawn from one case; m is the number of structures. ValueError where the arrays do not
    belong together.

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
        odds, of_voxels = self.log_odds, (self.target, self.label, self.masks, self.stratum)
        tables = self.drawn_of, self.outside
        largest_code = (1 << len(odds)) - 1 if self.regions else len(odds)
        if not (
            odds.ndim == 2
            and odds.dtype == np.float16
            and np.isfinite(odds).all()
            and all(values.shape == odds.shape[1:] for values in of_voxels)
            and [table.shape[1:] for table in tables] == [(2,), (3,)]
            and all(
                values.dtype.kind in "iu" and (values >= 0).all()
                for values in (*of_voxels, *tables)
            )
            and all(
                (codes <= largest_code).all()
                for codes in (self.target, self.label, self.outside[:, 0])
            )
            and (self.stratum < len(self.drawn_of)).all()
        ):
            raise ValueError("the arrays of the sample do not belong together")

    @property
    def num_structures(self) -> int:
        """m."""
        return len(self.log_odds)

    @property
    def weights(self) -> np.ndarray:
        """(n,) how many voxels of the case each drawn one stands for."""
        drawn, of = self.drawn_of.astype(np.float64).T
        return (of / np.maximum(drawn, 1))[self.stratum]

    def voxels(self) -> Voxels:
        """The voxels with their weights, for a fit."""
        label, truth = (
            torch.from_numpy(self.unpacked(codes)) for codes in (self.label, self.target)
        )
        odds = torch.from_numpy(self.log_odds.astype(np.float32))
        return Voxels(odds, label, truth, torch.from_numpy(self.weights))

    def unpacked(self, codes: np.ndarray) -> np.ndarray:
        """(n,) classes, or (m, n) whether voxels are in each region, of labels or targets as they
        are kept."""
        if not self.regions:
            return codes.astype(np.int64)
        inside = codes >> np.arange(self.num_structures, dtype=codes.dtype)[
            :, None
        ] & codes.dtype.type(1)
        return inside.astype(np.uint8)


def most_bytes(num_channels: int) -> int:
    """Size of a sample's arrays at most: 60 kB for each channel, 800 kB for all, less what a file
    needs beside them."""
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
    """Draw voxels of one case without replacement within strata; its log-odds pass by twice, a
    block at a time.

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
    regions, crop = probabilities.regions, probabilities.crop
    label, stratum = np.zeros(target.shape, target.dtype), np.zeros(target.shape, np.uint16)
    for where, odds in probabilities.odds_blocks():
        chosen = _labels(odds, regions).astype(target.dtype)
        label[where] = chosen
        stratum[where] = _strata(
            odds.flatten(1), chosen.ravel(), target[where].ravel(), regions
        ).reshape(chosen.shape)
    seen = np.zeros(target.shape, bool)
    if crop is not None:
        seen[crop] = True if valid is None else valid[crop]
    if not seen.any():
        raise ValueError(
            "nothing but certain background, or nothing with a ground truth; leave this case out."
        )
    masks = {name: np.zeros(target.shape, bool) for name in MASK_BITS} | dict(around or {})
    if near is not None:
        masks["near"] = near(label != 0)
    bits = pack((masks[name] for name in MASK_BITS), len(MASK_BITS))

    key = stratum[seen]
    present = np.bincount(key, minlength=1)
    num = probabilities.num_channels - (not regions)
    bytes_per_voxel = 2 * num + 2 * target.itemsize + 3
    limit = most_bytes(num + (not regions)) if limit_bytes is None else limit_bytes
    wanted, rng = _shares(present, limit // bytes_per_voxel), np.random.default_rng(seed)
    is_drawn = np.zeros(len(key), bool)
    for s in np.flatnonzero(wanted).tolist():
        is_drawn[np.flatnonzero(key == s)[rng.choice(present[s], wanted[s], replace=False)]] = True
    drawn = np.zeros(target.shape, bool)
    drawn[seen] = is_drawn
    taken = [odds[:, torch.from_numpy(drawn[where])] for where, odds in probabilities.odds_blocks()]
    # log-odds of probabilities do not exceed 88, but those of logits can be beyond half precision
    log_odds = torch.cat(taken, 1).clamp(-_LARGEST, _LARGEST).numpy().astype(np.float16)
    not_seen = ~seen if valid is None else valid & ~seen
    kinds = (
        pd.Series(target[not_seen].astype(np.int64) << len(MASK_BITS) | bits[not_seen])
        .value_counts()
        .sort_index()
    )
    codes = kinds.index.to_numpy()
    outside = np.stack(
        [codes >> len(MASK_BITS), codes & (1 << len(MASK_BITS)) - 1, kinds.to_numpy()], 1
    )
    of_voxels = target[drawn], label[drawn], bits[drawn], stratum[drawn]
    return Sample(log_odds, *of_voxels, np.stack([wanted, present], 1), outside, regions)


def sample_arrays(probs: np.ndarray, labels: np.ndarray, regions: bool) -> Sample:
    """A sample of the arrays that `CalibrationMap.fit` takes.

    ValueError where shapes or labels do not fit, or there is nothing but certain background.
    """
    expected = probs.shape if regions else probs.shape[1:]
    highest = 1 if regions else len(probs) - 1
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
        target = labels.astype(np.uint8 if len(probs) <= 256 else np.uint16)
    return draw_sample(SavedProbabilities(probs, regions), target)


def _labels(odds: Tensor, regions: bool) -> np.ndarray:
    """(*block) what the network chose, by (m, *block) log-odds: the lower one of equal classes."""
    if regions:
        return pack((odds > 0).numpy(), len(odds))
    largest, place = odds.max(0)
    return torch.where(largest > 0, place + 1, 0).numpy()


def _strata(odds: Tensor, label: np.ndarray, target: np.ndarray, regions: bool) -> np.ndarray:
    """(n,) stratum: chosen label (regions: whether in any), decade of 1 - the largest probability,
    right.

    The probability of regions is that of the least certain one.
    """
    decades = []
    for piece in odds.split(_PIECE, 1):
        if regions:
            doubt = torch.sigmoid(-piece.abs()).amax(0)
        else:
            largest = piece.amax(0)
            top = largest.clamp_min(0)
            # the largest one's own term is 1
            others = (piece - top).exp_().sum(0) + (-top).exp() - 1
            doubt = others / (1 + others)
        decades.append(np.floor(-np.log10(np.maximum(doubt.numpy(), 1e-30))))
    decade = np.clip(np.concatenate(decades), 0, _DECADES).astype(np.uint16)
    chosen = (label != 0 if regions else label).astype(np.uint16)
    return 2 * ((_DECADES + 1) * chosen + decade) + (label == target)


def _shares(present: np.ndarray, budget: int) -> np.ndarray:
    """How many of each stratum: one, the rest as said above, none more than it has, what is left
    shared again."""
    shares = np.minimum(present, 1 if np.count_nonzero(present) <= budget else 0)
    decade = np.arange(len(present)) // 2 % (_DECADES + 1)
    variance = present * 10.0 ** (-decade / 2)
    while (left := budget - int(shares.sum())) > 0 and (open_ := shares < present).any():
        worth = open_ * (variance / max(variance[open_].sum(), 1e-30) + 1 / open_.sum()) / 2
        more = np.minimum(np.floor(left * worth).astype(np.int64), present - shares)
        if not more.any():
            break
        shares += more
    return shares


def pack(inside: Iterable[np.ndarray], num: int) -> np.ndarray:
    """``num`` boolean arrays of one shape as integers, the first in bit 0."""
    dtype = np.min_scalar_type((1 << num) - 1)
    packed = np.zeros((), dtype)
    for bit, mask in enumerate(inside):
        packed = packed | mask.astype(dtype) << dtype.type(bit)
    return packed
