"""The calibration map: changes the log-odds of each voxel, depending on the label that the network chose there.

With l_k = max(z_k - max_j z_j, -15), u_k = l_k - l_0 and c the most probable label:

    classes:  v = log(1 + sum_j exp u_j),    u'_k = sum_j a_ckj u_j + g_ck v + b_ck,   p' = softmax(0, u'_1, ..., u'_m)
    regions:  u_r = z_r clipped to +-15, v_r = log(1 + exp u_r), c whether the region is predicted:
              u'_r = a_cr u_r + g_cr v_r + b_cr,   p'_r = sigmoid(u'_r)

0 is the background, and v is -log p_0 of the clipped log-odds. For a region a u + g v is a log p - (a + g) log(1 - p),
the beta calibration of Kull, Silva Filho and Flach (AISTATS 2017); it rises with p where a and a + g are above 0. A map
acts voxel by voxel and is blind to a constant common to all classes, so probabilities are as good as logits.

One affine map for each predicted class is the idea of fiducio's class-conditional calibrators ("Rethinking Post-Hoc
Calibration in Semantic Segmentation", 2026, arXiv 2607.01902). Here it acts on log-odds to the background with v beside
them, has a form for regions, and the label stays though another class may become more probable.

Where slopes and offsets are those of every label, the map is affine in the logits (but for the clipping): it commutes
with averages of logits and with linear resampling. Where they differ by label it is applied to the final probabilities.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.binning import most_probable
from nnunet_nacl.metrics.overlap import bounding_box

CLIP = 15.0
"""Log-odds to the most probable class beyond it count as this far: what lies there is rounding, not knowledge."""
CERTAIN = 1e-6
"""A voxel where no structure has a higher probability is background for certain, and stays as it is."""

_SMALLEST = float(torch.finfo(torch.float32).tiny)  # as the metrics clip
_BLOCK = 1 << 20  # probabilities at a time


@dataclass(frozen=True)
class LogOddsMap:
    """One calibration of one set of structures; m is K - 1 for K classes, R for R regions.

    Attributes:
        slopes: (P, m) a_ckk, all above 0, where nothing else acts; P is the number of labels that a voxel can have (K,
            or 2 for regions: out and in), or 1 where all labels have one row. Or (P, m, m + 1): all a_ckj,
            then g_ck; of regions (P, m, 2): a_cr and g_cr, with a + g above 0.
        offsets: (P, m) b.
        regions: Whether the channels are sigmoid regions.

    Raises:
        ValueError: Shapes do not fit, a slope is not above 0, or a number is not finite.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    regions: bool = False

    def __post_init__(self) -> None:
        for name in ("slopes", "offsets"):
            object.__setattr__(self, name, np.atleast_2d(np.asarray(getattr(self, name), dtype=np.float64)))
        (labels, num), shape = self.offsets.shape[:2], self.slopes.shape
        full = self.slopes.ndim == 3 and labels > 1
        features = 2 if self.regions else num + 1
        if self.offsets.ndim != 2 or not num or shape != (labels, num, features)[: 3 if full else 2]:
            shapes = f"{self.slopes.shape} and {self.offsets.shape}"
            raise ValueError(f"slopes and offsets must be tables of one shape, labels by structures, got {shapes}.")
        if labels not in (1, self.num_labels):
            raise ValueError(f"{num} structures take 1 or {self.num_labels} rows of slopes, one a label, got {labels}.")
        positive = [self.own_slopes, self.slopes.sum(-1)] if full and self.regions else [self.own_slopes]
        if not (np.isfinite(self.slopes).all() and np.isfinite(self.offsets).all() and np.min(positive) > 0):
            raise ValueError(f"slopes must be above 0 and all finite, got {self.slopes} and {self.offsets}.")

    @property
    def num_structures(self) -> int:
        """m."""
        return self.offsets.shape[1]

    @property
    def num_labels(self) -> int:
        """Labels that a voxel can have: the classes, or out of and in a region."""
        return 2 if self.regions else self.num_structures + 1

    @property
    def is_affine(self) -> bool:
        """Whether it has one row for all labels, and so commutes with averages of logits."""
        return len(self.slopes) == 1

    @property
    def own_slopes(self) -> np.ndarray:
        """(P, m) a_ckk, by which a structure's own log-odds act."""
        if self.slopes.ndim == 2:
            return self.slopes
        return self.slopes[..., 0] if self.regions else np.diagonal(self.slopes, axis1=1, axis2=2)

    @property
    def digest(self) -> str:
        """What results under it depend on, in a few letters: its table grows with the cube of the structures."""
        content = hashlib.blake2b(repr((self.slopes.shape, self.regions)).encode(), digest_size=16)
        content.update(np.ascontiguousarray(self.slopes).tobytes())
        content.update(np.ascontiguousarray(self.offsets).tobytes())
        return content.hexdigest()

    def coefficients(self) -> np.ndarray:
        """(K, m, m + 2) a_ckj, g_ck and b_ck, or (2, R, 3) a_cr, g_cr and b_cr of regions: a row for every label."""
        slopes, num = self.slopes, self.num_structures
        if slopes.ndim == 2:
            slopes = slopes[..., None] * (np.array([1.0, 0.0]) if self.regions else np.eye(num, num + 1))
        rows = np.concatenate([slopes, self.offsets[..., None]], -1)
        return np.broadcast_to(rows, (self.num_labels, *rows.shape[1:])).copy()

    def logits(self, odds: Tensor, label: int) -> Tensor:
        """(m, n) u' of voxels with one label, by their (m, n) clipped log-odds."""
        row = 0 if self.is_affine else label
        slopes, offsets = (torch.as_tensor(table[row]).to(odds) for table in (self.slopes, self.offsets))
        if slopes.ndim == 1:
            return torch.addcmul(offsets[:, None], odds, slopes[:, None])
        if self.regions:
            return odds * slopes[:, :1] + torch.nn.functional.softplus(odds) * slopes[:, 1:] + offsets[:, None]
        return (slopes @ with_total(odds)).add_(offsets[:, None])

    def to_probabilities(self, odds: Tensor, label: Tensor) -> Tensor:
        """(C, n) calibrated, of (m, n) log-odds by :func:`log_odds` and the label as :func:`most_probable` gives it."""
        mapped = self._mapped(odds, label)
        return torch.where(is_certain(odds), probabilities(odds, self.regions), mapped)

    def _mapped(self, odds: Tensor, label: Tensor) -> Tensor:
        """Calibrated probabilities of voxels that are not background for certain."""
        near = clipped(odds, self.regions)
        if self.is_affine:
            return probabilities(self.logits(near, 0), self.regions)
        if self.regions:
            out, inside = (self.logits(near, row) for row in (0, 1))
            return probabilities(torch.where(label.bool(), inside, out), True)
        counts = torch.bincount(label.long(), minlength=self.num_labels)
        common = int(counts.argmax())  # all are taken for it, since most have one label, and the others are mended
        result = self.logits(near, common)
        for chosen in torch.nonzero(counts).ravel().tolist():
            if chosen != common:
                here = torch.nonzero(label == chosen).ravel()
                result.index_copy_(1, here, self.logits(near.index_select(1, here), chosen))
        return probabilities(result, False)

    def __call__(self, probs: np.ndarray, inside: tuple[slice, ...] | None = None) -> np.ndarray:
        """Calibrate the probabilities of one case.

        Args:
            probs: (C, *spatial) as nnU-Net saves them; ValueError where the map is of another C. What lies outside
                nnU-Net's crop stays as it is: no network has seen it.
            inside: Where in ``probs`` that crop is; None looks for it, see :func:`network_box`.

        Returns:
            A new array of this shape; float32, or float64 if that was given.
        """
        if len(probs) != (channels := self.num_structures + (not self.regions)):
            raise ValueError(f"this map is for {channels} channels, got probabilities of shape {probs.shape}.")
        result = probs.astype(np.float64 if probs.dtype == np.float64 else np.float32)
        box = network_box(probs, self.regions) if inside is None else inside
        if box is None or not result[(slice(None), *box)].size:
            return result
        target, given = (array[(slice(None), *box)] for array in (result, probs))
        rows = max(1, _BLOCK // max(1, target[:, 0].size))
        for start in range(0, target.shape[1], rows):
            # as given: what a probability of exactly 1 counts for depends on its type
            block = torch.from_numpy(np.ascontiguousarray(given[:, start : start + rows])).flatten(1)
            unsure = (block if self.regions else block[1:]).amax(0) > CERTAIN  # most voxels are plain background
            where = torch.nonzero(unsure).ravel()
            if len(where):
                chosen = block if len(where) == block.shape[1] else block.index_select(1, where)
                mapped = self._mapped(log_odds(chosen, self.regions), most_probable(chosen, self.regions))
                if chosen is not block:
                    mapped = block.to(mapped.dtype, copy=True).index_copy_(1, where, mapped)
                part = target[:, start : start + rows]
                part[...] = mapped.view(part.shape).numpy()
        return result


def log_odds(probs: np.ndarray | Tensor, regions: bool = False) -> Tensor:
    """(m, ...) log-odds against the background, log p_k - log p_0, or of each region, log p - log(1 - p).

    Probabilities of exactly 0 count as the smallest normal float32, as in the metrics. A region's probability of
    exactly 1 counts as halfway to 1 from the largest number below it: what z was cannot be known from it. Float32 of
    (C, ...) ``probs`` of any floating type; float64 of float64.
    """
    probs = torch.as_tensor(np.ascontiguousarray(probs) if isinstance(probs, np.ndarray) else probs)
    step = torch.finfo(probs.dtype).eps
    if probs.dtype != torch.float64:
        probs = probs.float()
    logs = probs.clamp_min(_SMALLEST).log()
    return logs - (1 - probs.double()).clamp_min(step / 4).log().to(probs.dtype) if regions else logs[1:] - logs[:1]


def probabilities(odds: Tensor, regions: bool) -> Tensor:
    """(C, ...) probabilities of (m, ...) log-odds: inverse of :func:`log_odds`."""
    return odds.sigmoid() if regions else torch.cat([torch.zeros_like(odds[:1]), odds]).softmax(0)


def is_certain(odds: Tensor) -> Tensor:
    """(n,) whether no structure has a probability above ``CERTAIN``, by (m, n) log-odds to the background (or out)."""
    return odds.amax(0) <= math.log(CERTAIN)


def clipped(odds: Tensor, regions: bool) -> Tensor:
    """(m, n) log-odds after the clipping of l_k, see above; regions: clipped to +-15."""
    if regions:
        return odds.clamp(-CLIP, CLIP)
    top = odds.amax(0).clamp_min_(0)
    return (odds - top).clamp_min_(-CLIP).sub_((-top).clamp_min_(-CLIP))


def with_total(odds: Tensor) -> Tensor:
    """(m + 1, n) clipped log-odds, and v = log(1 + sum_j exp u_j) below them."""
    return torch.cat([odds, torch.logsumexp(torch.cat([torch.zeros_like(odds[:1]), odds]), 0, keepdim=True)])


def is_label(label: Tensor, num: int) -> Tensor:
    """(num, n) whether each voxel has the label of each structure, by (n,) classes or (num, n) regions."""
    return label.bool() if label.ndim == 2 else label == torch.arange(1, num + 1)[:, None]


def log_loss(rest: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """(n,) log loss of the true class, 0 being ``rest``."""
    every = torch.cat([rest[None], logits])
    return every.logsumexp(0) - every.gather(0, target[None])[0]


def network_box(probs: np.ndarray, regions: bool = False) -> tuple[slice, ...] | None:
    """The part of the image that the network saw, nnU-Net's crop; None if no structure has any probability anywhere.

    nnU-Net fills what lies outside with background 1 and all else exactly 0 (regions: 0 throughout), and inside a
    probability of 0 takes logits more than 100 apart. So the crop is the box of the voxels with a structure above 0.
    """
    return bounding_box((probs if regions else probs[1:]).max(axis=0) > 0)
