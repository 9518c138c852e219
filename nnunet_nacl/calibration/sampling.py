"""A few voxels of each case that stand for all of it, so that the probabilities themselves may be deleted.

Voxels fall into strata by the label that the network chose, how uncertain they are (1 - largest probability, by powers
of ten) and whether they are right. The strata share the budget evenly, and one that has fewer voxels leaves the rest to
the others: uncertain and wrong voxels, which decide a fit, are drawn densely, often all of them. Each voxel drawn
stands for as many as its stratum has for each drawn (inverse-probability weights; Horvitz and Thompson 1952), which
makes every sum over voxels unbiased, although the truth helped to choose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.calibration.case_voxels import HeldOutCase, Voxels, unpack

_DECADES = 6  # uncertainty 1 .. 1e-6
_BLOCK = 1 << 22
_PIECE = 1 << 15
_LARGEST = 65504.0  # of float16


@dataclass(frozen=True)
class Sample:
    """Voxels drawn from one case.

    Attributes:
        log_odds: (m, n) float16.
        target: (n,) true class, or for regions the integer whose bit r says whether the voxel lies in region r.
        label: (n,) most probable class, or the integer of the regions that are predicted.
        masks: (n,) uint8, see :data:`~nnunet_nacl.calibration.case_voxels.MASK_BITS`.
        stratum: (n,) stratum of each voxel.
        drawn_of: (S, 2) voxels drawn and voxels there, for each stratum.
        outside: (V, 3) target, masks and number of the voxels outside nnU-Net's crop, which the network did not see.
        regions: Whether the structures are regions.
        signature: Text that identifies the files it was drawn from.
        extra: Further arrays of the file, by name, which nothing here looks at.

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
    signature: str = ""
    extra: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        odds, of_voxels = self.log_odds, (self.target, self.label, self.masks, self.stratum)
        tables, num = (self.drawn_of, self.outside), len(odds) if odds.ndim == 2 else 0
        largest_code = (1 << num) - 1 if self.regions else num
        if not (
            odds.ndim == 2
            and odds.dtype == np.float16
            and np.isfinite(odds).all()
            and all(one.shape == odds.shape[1:] for one in of_voxels)
            and [one.shape[1:] for one in tables] == [(2,), (3,)]
            and all(one.dtype.kind in "iu" and (one >= 0).all() for one in (*of_voxels, *tables))
            and all((one <= largest_code).all() for one in (self.target, self.label, self.outside[:, 0]))
            and (self.stratum < len(self.drawn_of)).all()
        ):
            raise ValueError("its arrays do not belong together")

    @property
    def weights(self) -> np.ndarray:
        """(n,) how many voxels each stands for."""
        drawn, there = self.drawn_of.astype(np.float64).T
        return (there / np.maximum(drawn, 1))[self.stratum]

    def truth(self) -> np.ndarray:
        """(n,) true class, or (m, n) 0 or 1 for regions."""
        return self._unpacked(self.target)

    def voxels(self) -> Voxels:
        """For a fit."""
        odds = torch.from_numpy(self.log_odds.astype(np.float32))
        label, truth = (torch.from_numpy(self._unpacked(codes)) for codes in (self.label, self.target))
        return Voxels(odds, label, truth, torch.from_numpy(self.weights))

    def _unpacked(self, codes: np.ndarray) -> np.ndarray:
        return unpack(codes, len(self.log_odds)) if self.regions else codes.astype(np.int64)


def most_bytes(num_channels: int) -> int:
    """Size of a case's arrays at most: 60 kB for each channel and 800 kB together, file headers included."""
    return min(60_000 * num_channels, 800_000) - 4096


def draw_sample(case: HeldOutCase, *, seed: int = 0, limit_bytes: int | None = None, signature: str = "") -> Sample:
    """Draw voxels of one case without replacement within strata; its log-odds pass by twice, a block at a time.

    Args:
        case: The voxels that the network saw and that have a truth.
        seed: Of the draw.
        limit_bytes: Size of the arrays at most; default :func:`most_bytes`.
        signature: Text that identifies the files.
    """
    rng, regions = np.random.default_rng(seed), case.regions
    key, done, num = np.empty(len(case.target), np.uint16), 0, 0
    for odds in _pieces(case):
        part = slice(done, done := done + odds.shape[1])
        num, key[part] = len(odds), _strata(odds, case.label[part], case.target[part], regions)
    each = 2 * num + 2 * case.target.itemsize + 3
    limit = most_bytes(num + (not regions)) if limit_bytes is None else limit_bytes
    present = np.bincount(key, minlength=1)
    wanted = _shares(present, limit // each)
    chosen = [_places(key, int(s), rng.choice(present[s], wanted[s], replace=False)) for s in np.flatnonzero(wanted)]
    index = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    taken, done = [], 0
    for odds in _pieces(case):
        here = index[np.searchsorted(index, done) : np.searchsorted(index, done + odds.shape[1])]
        # log-odds of probabilities do not exceed 88, but those of logits can be beyond half precision
        taken.append(odds[:, torch.from_numpy(here - done)].clamp(-_LARGEST, _LARGEST).numpy().astype(np.float16))
        done += odds.shape[1]
    drawn_of = np.stack([wanted, present], 1)
    arrays = case.target[index], case.label[index], case.masks[index], key[index], drawn_of, case.outside
    return Sample(np.concatenate(taken, 1), *arrays, regions, signature)


def _pieces(case: HeldOutCase) -> Iterator[Tensor]:
    """Log-odds in pieces that stay in the cache."""
    for odds in case.odds():
        yield from odds.split(_PIECE, 1)


def _strata(odds: Tensor, label: np.ndarray, target: np.ndarray, regions: bool) -> np.ndarray:
    """Stratum of each voxel: chosen label (regions: whether in any), decade of 1 - the largest probability, right.

    The probability of regions is that of the least certain one.
    """
    if regions:
        doubt = torch.sigmoid(-odds.abs()).amax(0)
    else:
        largest = odds.amax(0)
        top = largest.clamp_min(0)
        others = (odds - top).exp_().sum(0) + (-top).exp() - 1  # the largest one's own term is 1
        doubt = others / (1 + others)
    decade = np.clip(np.floor(-np.log10(np.maximum(doubt.numpy(), 1e-30))), 0, _DECADES).astype(np.uint16)
    chosen = (label != 0 if regions else label).astype(np.uint16)
    return 2 * ((_DECADES + 1) * chosen + decade) + (label == target)


def _places(key: np.ndarray, stratum: int, numbers: np.ndarray) -> np.ndarray:
    """Where the voxels with these numbers within a stratum are; a list of all its voxels would be larger than them."""
    numbers, found, passed = np.sort(numbers), [], 0
    for start in range(0, len(key), _BLOCK):
        here = np.flatnonzero(key[start : start + _BLOCK] == stratum)
        first, last = np.searchsorted(numbers, (passed, passed + len(here)))
        found.append(start + here[numbers[first:last] - passed])
        passed += len(here)
    return np.concatenate(found)


def _shares(present: np.ndarray, budget: int) -> np.ndarray:
    """How many of each stratum: equal shares, none more than it has, the rest shared again."""
    shares = np.zeros_like(present)
    while True:
        open_ = shares < present
        left = budget - int(shares.sum())
        if not open_.any() or left < open_.sum():
            return shares
        shares[open_] = np.minimum(shares[open_] + left // int(open_.sum()), present[open_])
