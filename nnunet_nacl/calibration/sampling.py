"""A few voxels of each case that stand for all of it, so that the probabilities themselves may be deleted.

Voxels fall into strata by how uncertain they are (1 - largest probability, by powers of ten) and whether they are
right. The strata share the budget evenly, and one that has fewer voxels leaves the rest to the others: uncertain and
wrong voxels, which decide a fit, are drawn densely, often all of them. Each voxel drawn stands for as many as its
stratum has for each drawn (inverse-probability weights; Horvitz and Thompson 1952), which makes every sum over voxels
unbiased, although the truth helped to choose.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.likelihood import Voxels
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import replacing

__all__ = ["MASK_BITS", "Sample", "draw_sample", "most_bytes", "read_sample", "write_sample"]

MASK_BITS = ("foreground", "union", "dilated", "boundary", "predicted")
"""The bits of ``Sample.masks``, lowest first; every voxel is in ``all``."""

_DECADES = 6  # uncertainty 1 .. 1e-6
_KEYS = ("log_odds", "target", "masks", "stratum", "drawn_of", "outside", "regions", "signature")
_SCHEMA = 1


@dataclass(frozen=True)
class Sample:
    """Voxels drawn from one case.

    Attributes:
        log_odds: (m, n) float16.
        target: (n,) true class, or for regions the integer whose bit r says whether the voxel lies in region r.
        masks: (n,) uint8, see :data:`MASK_BITS`.
        stratum: (n,) uint8 stratum of each voxel.
        drawn_of: (S, 2) voxels drawn and voxels there, for each stratum.
        outside: (V, 3) target, masks and number of the voxels outside nnU-Net's crop, which the network did not see.
        regions: Whether the structures are regions.
        signature: Text that identifies the files it was drawn from.
    """

    log_odds: np.ndarray
    target: np.ndarray
    masks: np.ndarray
    stratum: np.ndarray
    drawn_of: np.ndarray
    outside: np.ndarray
    regions: bool
    signature: str = ""

    @property
    def weights(self) -> np.ndarray:
        """(n,) how many voxels each stands for."""
        drawn, there = self.drawn_of.astype(np.float64).T
        return (there / np.maximum(drawn, 1))[self.stratum]

    def truth(self) -> np.ndarray:
        """(n,) true class, or (m, n) 0 or 1 for regions."""
        return unpack(self.target, len(self.log_odds)) if self.regions else self.target.astype(np.int64)

    def voxels(self) -> Voxels:
        """For a fit."""
        odds = torch.from_numpy(self.log_odds.astype(np.float32))
        return Voxels(odds, torch.from_numpy(self.truth()), torch.from_numpy(self.weights))


def most_bytes(num_channels: int) -> int:
    """Size of a case's arrays at most: 60 kB for each channel and 900 kB together, file headers included."""
    return min(60_000 * num_channels, 900_000) - 4096


def pack(inside: np.ndarray) -> np.ndarray:
    """(R, N) booleans as integers, region r in bit r."""
    dtype = np.min_scalar_type((1 << len(inside)) - 1)
    return np.bitwise_or.reduce(inside.astype(dtype) << np.arange(len(inside), dtype=dtype)[:, None], axis=0)


def unpack(packed: np.ndarray, num: int) -> np.ndarray:
    """Inverse of :func:`pack`, as uint8."""
    return (packed >> np.arange(num, dtype=packed.dtype)[:, None] & packed.dtype.type(1)).astype(np.uint8)


def draw_sample(
    voxels: Voxels,
    masks: np.ndarray,
    outside: np.ndarray,
    *,
    seed: int = 0,
    limit_bytes: int | None = None,
    signature: str = "",
) -> Sample:
    """Draw voxels of one case without replacement within strata.

    Args:
        voxels: Those that the network saw and that have a truth.
        masks: (N,) uint8 bits of each.
        outside: (V, 3), see :class:`Sample`.
        seed: Of the draw.
        limit_bytes: Size of the arrays at most; default :func:`most_bytes`.
        signature: Text that identifies the files.
    """
    rng, regions = np.random.default_rng(seed), voxels.regions
    log_odds, target = voxels.log_odds.numpy(), voxels.target.numpy()
    largest, right = _certainty(log_odds, target, regions)
    decade = np.clip(np.floor(-np.log10(np.maximum(1 - largest, 1e-30))), 0, _DECADES).astype(np.int64)
    key = (2 * decade + right).astype(np.uint8)
    packed = pack(target) if regions else target.astype(np.uint8 if len(log_odds) < 256 else np.uint16)
    each = 2 * len(log_odds) + packed.itemsize + 2
    limit = most_bytes(len(log_odds) + (not regions)) if limit_bytes is None else limit_bytes
    present = np.bincount(key, minlength=2 * _DECADES + 2)
    wanted = _shares(present, limit // each)
    chosen = [rng.choice(np.flatnonzero(key == s), wanted[s], replace=False) for s in np.flatnonzero(wanted)]
    index = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
    odds = log_odds[:, index].astype(np.float16)  # which ends at 65504; log-odds of probabilities do not exceed 88
    drawn_of = np.stack([wanted, present], 1)
    return Sample(odds, packed[index], masks[index], key[index], drawn_of, outside, regions, signature)


def _certainty(log_odds: np.ndarray, target: np.ndarray, regions: bool) -> tuple[np.ndarray, np.ndarray]:
    """Largest probability (regions: of the least certain region), and whether the voxel is right (in all regions)."""
    odds = torch.from_numpy(log_odds).double()  # in which 1 - p keeps its digits
    probs = AffineMap.identity(len(odds), regions).to_probabilities(odds.abs() if regions else odds).numpy()
    if regions:
        return probs.min(0), ((log_odds > 0) == target).all(0)
    return probs.max(0), probs.argmax(0) == target


def _shares(present: np.ndarray, budget: int) -> np.ndarray:
    """How many of each stratum: equal shares, none more than it has, the rest shared again."""
    shares = np.zeros_like(present)
    while True:
        open_ = shares < present
        left = budget - int(shares.sum())
        if not open_.any() or left < open_.sum():
            return shares
        shares[open_] = np.minimum(shares[open_] + left // int(open_.sum()), present[open_])


def write_sample(sample: Sample, path: Path) -> None:
    """Write under a temporary name, then rename; UserError where that is not possible.

    The file is an npz archive under another ending: nnU-Net takes every ``*.npz`` of a folder for a prediction.
    """
    arrays: dict[str, Any] = {name: np.asarray(getattr(sample, name)) for name in _KEYS}
    with replacing(path) as temporary, open(temporary, "xb") as file:  # an open file: NumPy would add .npz to a name
        np.savez_compressed(file, schema=_SCHEMA, **arrays)


def read_sample(path: Path) -> Sample:
    """Inverse of :func:`write_sample`; UserError if the file is missing, broken or of another version."""
    try:
        with np.load(path, allow_pickle=False) as data:
            if int(data["schema"]) != _SCHEMA:
                raise ValueError(f"schema {int(data['schema'])}")
            values = {name: data[name] for name in _KEYS}
        return Sample(**values | {"regions": bool(values["regions"]), "signature": str(values["signature"])})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: not a sample of this version of nnunet_nacl ({error}); calibrate again.") from None
