"""A few voxels of each case that stand for all of it, so that the probabilities themselves may be deleted.

Voxels fall into strata by the label that the network chose, how uncertain they are (1 - largest probability, by powers
of ten) and whether they are right. Half of the budget is shared evenly, so that uncertain and wrong voxels, which
decide a fit, are drawn densely, often all of them; half in proportion to what a stratum adds to the error of sums of
probabilities (Neyman 1934). A stratum that has fewer voxels leaves the rest to the others. Each voxel drawn stands for
as many as its stratum has for each drawn (inverse-probability weights; Horvitz and Thompson 1952), which makes every
sum over voxels unbiased, although the truth helped to choose.

Beside the voxels stand the sums, over all voxels, of the probabilities at a few temperatures. A map changes
probabilities much as a temperature does: what it adds to a sum is estimated by a regression on these (generalised
regression estimator; Cassel, Saerndal and Wretman 1976), with a small part of the error of a weighted sum.

With many classes the log of each p_k / max_j p_j is kept as one byte q, finer where it matters, as -(q / 57)^2, from 0
to -20; that of the true class is kept in half precision, so that the log loss does not feel the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.case_voxels import HeldOutCase, Voxels, unpack
from nnunet_nacl.numbers.log_odds_map import SLOPES, is_label, tempered

_DECADES = 6  # uncertainty 1 .. 1e-6
_BLOCK = 1 << 22
_PIECE = 1 << 13
_LARGEST = 65504.0  # of float16
_FINE = 8  # structures at most that are kept in half precision
_CODES = 57.0  # of the root of minus a logarithm: 255 is -20


@dataclass(frozen=True)
class Sample:
    """Voxels drawn from one case.

    Attributes:
        log_odds: (m, n) float16; or, of many classes, (m + 1, n) uint8, codes of log p_k / max_j p_j from class 0 on.
        target: (n,) true class, or for regions the integer whose bit r says whether the voxel lies in region r.
        label: (n,) most probable class, or the integer of the regions that are predicted.
        masks: (n,) uint8, see :data:`~nnunet_nacl.numbers.case_voxels.MASK_BITS`.
        stratum: (n,) stratum of each voxel.
        drawn_of: (S, 2) voxels drawn and voxels there, for each stratum.
        outside: (V, 3) target, masks and number of the voxels outside nnU-Net's crop, which the network did not see.
        regions: Whether the structures are regions.
        tempered: (4, 2, m) sums over all voxels of the probabilities at slopes .5, 1, 1.5 and 2, and over the voxels
            with that label.
        signature: Text that identifies the files it was drawn from.
        true_log: (n,) float16, with codes: log p_y / max_j p_j of the true class.

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
    tempered: np.ndarray
    signature: str = ""
    true_log: np.ndarray | None = None

    def __post_init__(self) -> None:
        odds, of_voxels = self.log_odds, (self.target, self.label, self.masks, self.stratum)
        tables, num = (self.drawn_of, self.outside), self.num_structures if odds.ndim == 2 else 0
        largest_code = (1 << num) - 1 if self.regions else num
        true_log, sums = self.true_log, self.tempered
        halves = odds if true_log is None else true_log
        if not (
            odds.ndim == 2
            and (true_log is None or (odds.dtype == np.uint8 and not self.regions))
            and halves.dtype == np.float16
            and np.isfinite(halves).all()
            and (true_log is None or true_log.shape == odds.shape[1:])
            and all(one.shape == odds.shape[1:] for one in of_voxels)
            and [one.shape[1:] for one in tables] == [(2,), (3,)]
            and all(one.dtype.kind in "iu" and (one >= 0).all() for one in (*of_voxels, *tables))
            and all((one <= largest_code).all() for one in (self.target, self.label, self.outside[:, 0]))
            and (self.stratum < len(self.drawn_of)).all()
            and sums.shape == (len(SLOPES), 2, num)
            and sums.dtype == np.float64
            and np.isfinite(sums).all()
        ):
            raise ValueError("its arrays do not belong together")

    @property
    def num_structures(self) -> int:
        """m."""
        return len(self.log_odds) - (self.true_log is not None)

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
        odds = self.log_odds.astype(np.float32)
        if self.true_log is not None:
            below = -((odds / _CODES) ** 2)
            below[self.target, np.arange(len(self.target))] = self.true_log
            odds = below[1:] - below[0]
        label, truth = (torch.from_numpy(self._unpacked(codes)) for codes in (self.label, self.target))
        return Voxels(torch.from_numpy(odds), label, truth, torch.from_numpy(self.weights))

    def sums(self, values: Tensor, *, inside: bool = False) -> np.ndarray:
        """(m,) sums over all voxels of the case, estimated, of what a map adds to the structures' probabilities.

        Args:
            values: (m, n) at the voxels drawn, 0 where background is certain.
            inside: They are 0 outside each structure's label.
        """
        voxels = self.voxels()
        weights, values = voxels.all_weights, values.double()
        by = torch.stack(list(tempered(voxels.log_odds.double(), self.regions)))  # (4, m, n)
        by = by * is_label(voxels.label, self.num_structures) if inside else by
        weighted = by * weights
        gram, along = torch.einsum("skn,tkn->kst", weighted, by), torch.einsum("skn,kn->ks", weighted, values)
        slopes = torch.linalg.pinv(gram, rcond=1e-8, hermitian=True) @ along[..., None]
        missed = torch.from_numpy(self.tempered[:, int(inside)]) - weighted.sum(-1)
        return (values @ weights + (slopes[..., 0] * missed.T).sum(1)).numpy()

    def _unpacked(self, codes: np.ndarray) -> np.ndarray:
        return unpack(codes, self.num_structures) if self.regions else codes.astype(np.int64)


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
    key, done, sums = np.empty(len(case.target), np.uint16), 0, []
    for odds in _pieces(case):
        part = slice(done, done := done + odds.shape[1])
        key[part] = _strata(odds, case.label[part], case.target[part], regions)
        sums.append(_tempered_sums(odds, case.label[part], regions))
    total = np.sum(sums, axis=0)
    num = total.shape[-1]
    coded = not regions and num > _FINE
    each = (num + 3 if coded else 2 * num) + 2 * case.target.itemsize + 3
    limit = most_bytes(num + (not regions)) if limit_bytes is None else limit_bytes
    present = np.bincount(key, minlength=1)
    wanted = _shares(present, limit // each)
    chosen = [_places(key, int(s), rng.choice(present[s], wanted[s], replace=False)) for s in np.flatnonzero(wanted)]
    index = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    taken, done = [], 0
    for odds in _pieces(case):
        here = index[np.searchsorted(index, done) : np.searchsorted(index, done + odds.shape[1])]
        # log-odds of probabilities do not exceed 88, but those of logits can be beyond half precision
        taken.append(odds[:, torch.from_numpy(here - done)].clamp(-_LARGEST, _LARGEST).numpy())
        done += odds.shape[1]
    drawn_of = np.stack([wanted, present], 1)
    arrays = case.target[index], case.label[index], case.masks[index], key[index], drawn_of, case.outside
    drawn = np.concatenate(taken, 1)
    stored, true_log = _coded(drawn, arrays[0]) if coded else (drawn.astype(np.float16), None)
    return Sample(stored, *arrays, regions, total, signature, true_log)


def _coded(odds: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes, and the logarithm of the true class, as :class:`Sample` keeps them."""
    logs = np.concatenate([np.zeros_like(odds[:1]), odds])
    logs -= logs.max(0)
    codes = np.minimum(np.rint(_CODES * np.sqrt(-logs)), 255).astype(np.uint8)
    true = logs[target, np.arange(len(target))]
    return codes, np.maximum(true, -_LARGEST).astype(np.float16)


def _tempered_sums(odds: Tensor, label: np.ndarray, regions: bool) -> np.ndarray:
    """(4, 2, m) sums of them over voxels, and over those with the label of the structure."""
    codes = torch.from_numpy(unpack(label, len(odds)) if regions else label.astype(np.int64))
    inside = is_label(codes, len(odds))
    return np.stack([np.stack([p.sum(1), (p * inside).sum(1)]) for p in tempered(odds, regions)]).astype(np.float64)


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
    """How many of each stratum: one, the rest as said above, none more than it has, what is left shared again."""
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
