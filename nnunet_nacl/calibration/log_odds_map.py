"""Calibration maps: they change the log-odds of each voxel, depending on the label that the network
chose there.

With the log-odds u and the total v of :mod:`nnunet_nacl.calibration.log_odds`, and c the most
probable label:

    classes:  u'_k = sum_j a_ckj u_j + g_ck v + b_ck,   p' = softmax(0, u'_1, ..., u'_m)
    regions:  v_r = log(1 + exp u_r), c whether the region is predicted:
              u'_r = a_cr u_r + g_cr v_r + b_cr,   p'_r = sigmoid(u'_r)

For a region a u + g v is a log p - (a + g) log(1 - p), the beta calibration of Kull, Silva Filho
and Flach (AISTATS 2017); it rises with p where a and a + g are above 0. A map acts voxel by voxel
and is blind to a constant common to all classes, so probabilities are as good as logits.

One affine map for each predicted class is the idea of fiducio's class-conditional calibrators
("Rethinking Post-Hoc Calibration in Semantic Segmentation", 2026, arXiv 2607.01902). Here it acts
on log-odds to the background with v beside them, has a form for regions, and the label stays though
another class may become more probable.

An :class:`AffineMap` has the same slopes and offsets at every label. It is affine in the logits
(but for the clipping), so that it commutes with averages of logits and with linear resampling. A
:class:`ConditionalMap` differs by label and is applied to the final probabilities.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nnunet_nacl.calibration.log_odds import (
    CERTAIN,
    clip_log_odds,
    is_certain_background,
    log_odds,
    network_box,
    probabilities,
    total_log_odds,
)
from nnunet_nacl.metrics.inputs import find_most_probable

_BLOCK = 1 << 20  # probabilities at a time


class LogOddsMap(ABC):
    """One calibration of one set of structures; m is K - 1 for K classes, R for R regions.

    Attributes:
        regions: Whether the channels are sigmoid regions.
        is_affine: Whether it is the same for all labels, and so commutes with averages of logits.
    """

    regions: bool
    is_affine: ClassVar[bool]

    @property
    @abstractmethod
    def num_structures(self) -> int:
        """m."""

    @property
    @abstractmethod
    def own_slopes(self) -> np.ndarray:
        """(P, m) a_ckk, by which a structure's own log-odds act; P is the number of labels, 1 of an
        affine map."""

    @property
    @abstractmethod
    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Slopes and offsets as :func:`map_from_tables` takes them."""

    @abstractmethod
    def coefficients(self) -> np.ndarray:
        """(K, m, m + 2) a_ckj, g_ck and b_ck, or (2, R, 3) a_cr, g_cr and b_cr of regions: a row
        for every label."""

    @abstractmethod
    def map_clipped(self, odds: Tensor, label: Tensor) -> Tensor:
        """(m, n) u' of voxels by their (m, n) clipped log-odds and their label."""

    @property
    def num_labels(self) -> int:
        """Labels that a voxel can have: the classes, or out of and in a region."""
        return count_labels(self.num_structures, self.regions)

    @property
    def digest(self) -> str:
        """Hash of the map, by which results name it.

        Its tables are too long for that: they grow with the cube of the structures.
        """
        slopes, offsets = self.tables
        content = hashlib.blake2b(repr((slopes.shape, self.regions)).encode(), digest_size=16)
        content.update(np.ascontiguousarray(slopes).tobytes())
        content.update(np.ascontiguousarray(offsets).tobytes())
        return content.hexdigest()

    def to_probabilities(self, odds: Tensor, label: Tensor) -> Tensor:
        """(C, n) calibrated probabilities.

        Args:
            odds: (m, n) log-odds as :func:`~nnunet_nacl.calibration.log_odds.log_odds` gives them.
            label: What :func:`~nnunet_nacl.metrics.inputs.find_most_probable` gives.
        """
        mapped = self._map(odds, label)
        unchanged = probabilities(odds, self.regions)
        return torch.where(is_certain_background(odds), unchanged, mapped)

    def _map(self, odds: Tensor, label: Tensor) -> Tensor:
        """(C, n) calibrated probabilities of voxels that are no certain background."""
        clipped = clip_log_odds(odds, self.regions)
        return probabilities(self.map_clipped(clipped, label), self.regions)

    def __call__(self, probs: np.ndarray, inside: tuple[slice, ...] | None = None) -> np.ndarray:
        """Calibrates the probabilities of one case.

        Args:
            probs: (C, *spatial) as nnU-Net saves them. What lies outside nnU-Net's crop stays as it
                is: no network has seen it.
            inside: Where in ``probs`` that crop is; None looks for it, see
                :func:`~nnunet_nacl.calibration.log_odds.network_box`.

        Returns:
            A new array of this shape; float32, or float64 if that was given.

        Raises:
            ValueError: The map is of another number of channels.
        """
        channels = self.num_structures if self.regions else self.num_structures + 1
        if len(probs) != channels:
            raise ValueError(
                f"this map is for {channels} channels, got probabilities of shape {probs.shape}."
            )
        dtype = np.float64 if probs.dtype == np.float64 else np.float32
        if inside is None:
            inside = network_box(probs, self.regions)
        if inside is None:  # no structure is probable anywhere
            return probs.astype(dtype)
        box = (slice(None), *inside)
        is_whole = probs[box].shape == probs.shape
        result = np.empty(probs.shape, dtype) if is_whole else probs.astype(dtype)
        if result[box].size:
            self._map_in_blocks(probs[box], result[box])
        return result

    def _map_in_blocks(self, given: np.ndarray, target: np.ndarray) -> None:
        """Writes the calibrated probabilities of (C, *spatial) ``given`` to ``target``, a few rows
        at a time."""
        voxels_of_a_row = max(1, target[:, 0].size)
        rows = max(1, _BLOCK // voxels_of_a_row)
        for start in range(0, target.shape[1], rows):
            # As given: what a probability of exactly 1 counts for depends on its type.
            block = np.ascontiguousarray(given[:, start : start + rows])
            mapped = self._map_block(torch.from_numpy(block).flatten(1))
            target[:, start : start + rows] = mapped.view(block.shape).numpy()

    def _map_block(self, block: Tensor) -> Tensor:
        """(C, n) calibrated probabilities of (C, n) voxels; those that are certain background stay
        as they are."""
        structures = block if self.regions else block[1:]
        is_unsure = structures.amax(0) > CERTAIN
        where = torch.nonzero(is_unsure).ravel()  # few: most voxels are plain background
        if not len(where):
            return block
        if len(where) == block.shape[1]:
            return self._map(log_odds(block, self.regions), find_most_probable(block, self.regions))
        unsure = block.index_select(1, where)
        mapped = self._map(log_odds(unsure, self.regions), find_most_probable(unsure, self.regions))
        return block.to(mapped.dtype, copy=True).index_copy_(1, where, mapped)


@dataclass(frozen=True, eq=False)
class AffineMap(LogOddsMap):
    """u'_k = a_k u_k + b_k at every label: a temperature (one slope, no offsets) or a shift.

    Attributes:
        slopes: (m,) a, all above 0.
        offsets: (m,) b.
        regions: Whether the channels are sigmoid regions.

    Raises:
        ValueError: Shapes do not fit, a slope is not above 0, or a number is not finite.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    regions: bool = False

    is_affine: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "slopes", np.asarray(self.slopes, dtype=np.float64))
        object.__setattr__(self, "offsets", np.asarray(self.offsets, dtype=np.float64))
        if (
            self.offsets.ndim != 1
            or not self.offsets.size
            or self.slopes.shape != self.offsets.shape
        ):
            raise _shape_error(self.slopes, self.offsets)
        _check_values(self.slopes, self.offsets, positive=[self.slopes])

    @property
    def num_structures(self) -> int:
        """m."""
        return len(self.offsets)

    @property
    def own_slopes(self) -> np.ndarray:
        """(1, m) a."""
        return self.slopes[None]

    @property
    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """(1, m) slopes and (1, m) offsets."""
        return self.slopes[None], self.offsets[None]

    def coefficients(self) -> np.ndarray:
        """The same row for every label, see :meth:`LogOddsMap.coefficients`."""
        slopes = spread_own_slopes(self.slopes[None], self.regions)
        rows = np.concatenate([slopes, self.offsets[None, :, None]], -1)
        return np.repeat(rows, self.num_labels, axis=0)

    def map_clipped(self, odds: Tensor, label: Tensor) -> Tensor:
        """(m, n) u'; the label does not matter."""
        slopes = torch.as_tensor(self.slopes).to(odds)
        offsets = torch.as_tensor(self.offsets).to(odds)
        return torch.addcmul(offsets[:, None], odds, slopes[:, None])


@dataclass(frozen=True, eq=False)
class ConditionalMap(LogOddsMap):
    """A row of slopes and offsets for each label that the network chose.

    Attributes:
        slopes: (K, m, m + 1) all a_ckj, then g_ck; of regions (2, R, 2) a_cr and g_cr. A
            structure's own slope, of regions also a + g, is above 0.
        offsets: (K, m), of regions (2, R), b.
        regions: Whether the channels are sigmoid regions.

    Raises:
        ValueError: Shapes do not fit, an own slope is not above 0, or a number is not finite.
    """

    slopes: np.ndarray
    offsets: np.ndarray
    regions: bool = False

    is_affine: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "slopes", np.asarray(self.slopes, dtype=np.float64))
        object.__setattr__(self, "offsets", np.asarray(self.offsets, dtype=np.float64))
        if self.offsets.ndim != 2 or not self.offsets.shape[1] or self.slopes.ndim != 3:
            raise _shape_error(self.slopes, self.offsets)
        num_rows, num_structures = self.offsets.shape
        num_features = 2 if self.regions else num_structures + 1
        if self.slopes.shape != (num_rows, num_structures, num_features):
            raise _shape_error(self.slopes, self.offsets)
        _check_rows(num_rows, num_structures, self.regions)
        positive = [self.own_slopes]
        if self.regions:  # the coefficient of -log(1 - p)
            positive.append(self.slopes.sum(-1))
        _check_values(self.slopes, self.offsets, positive)

    @property
    def num_structures(self) -> int:
        """m."""
        return self.offsets.shape[1]

    @property
    def own_slopes(self) -> np.ndarray:
        """(K, m) a_ckk, or (2, R) a_cr."""
        if self.regions:
            return self.slopes[..., 0]
        return np.diagonal(self.slopes, axis1=1, axis2=2)

    @property
    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Slopes and offsets."""
        return self.slopes, self.offsets

    def coefficients(self) -> np.ndarray:
        """A row for every label, see :meth:`LogOddsMap.coefficients`."""
        return np.concatenate([self.slopes, self.offsets[..., None]], -1)

    def map_clipped(self, odds: Tensor, label: Tensor) -> Tensor:
        """(m, n) u' by the row of each voxel's label."""
        if self.regions:
            outside = self._map_regions_with_row(odds, 0)
            inside = self._map_regions_with_row(odds, 1)
            return torch.where(label.bool(), inside, outside)
        # Voxels are put in the order of their labels, so that those of a label are one matrix
        # product.
        labels = label.cpu().numpy().astype(np.uint16)  # whose sort takes linear time
        order = np.argsort(labels, kind="stable")
        place_in_order = np.empty_like(order)
        place_in_order[order] = np.arange(len(order))
        voxels_by_label = np.bincount(labels, minlength=self.num_labels).tolist()
        num_structures, num_voxels = odds.shape
        features = odds.new_ones((num_structures + 2, num_voxels))  # u, v and 1
        order_on_device = torch.from_numpy(order).to(odds.device)
        ordered = torch.index_select(odds, 1, order_on_device, out=features[:num_structures])
        features[num_structures] = total_log_odds(ordered)
        mapped = torch.empty_like(odds)
        groups = zip(
            self._rows.to(odds),
            features.split(voxels_by_label, dim=1),
            mapped.split(voxels_by_label, dim=1),
        )
        for row, features_of_label, mapped_of_label in groups:
            torch.mm(row, features_of_label, out=mapped_of_label)
        # several times as fast as copying each voxel to its place
        return mapped.index_select(1, torch.from_numpy(place_in_order).to(odds.device))

    @cached_property
    def _rows(self) -> Tensor:
        """See :meth:`coefficients`; made once, since of many structures there are millions."""
        return torch.from_numpy(self.coefficients())

    def _map_regions_with_row(self, odds: Tensor, label: int) -> Tensor:
        """(R, n) u' of voxels that are all outside (0) or all inside (1) the regions."""
        slopes = torch.as_tensor(self.slopes[label]).to(odds)
        offsets = torch.as_tensor(self.offsets[label]).to(odds)
        total = torch.nn.functional.softplus(odds)
        return odds * slopes[:, :1] + total * slopes[:, 1:] + offsets[:, None]


def map_from_tables(slopes: ArrayLike, offsets: ArrayLike, regions: bool = False) -> LogOddsMap:
    """The map of slopes and offsets, as files hold them.

    Args:
        slopes: (m,) or (1, m): the same for all labels. (P, m): each structure's own slope, P the
            number of labels (K, or 2 for regions: out and in). Or as :class:`ConditionalMap` has
            them.
        offsets: (m,), (1, m) or (P, m).
        regions: Whether the channels are sigmoid regions.

    Raises:
        ValueError: Shapes do not fit, an own slope is not above 0, or a number is not finite.
    """
    slopes = np.atleast_2d(np.asarray(slopes, dtype=np.float64))
    offsets = np.atleast_2d(np.asarray(offsets, dtype=np.float64))
    if slopes.ndim == 2:
        if slopes.shape != offsets.shape:
            raise _shape_error(slopes, offsets)
        if len(slopes) == 1:
            return AffineMap(slopes[0], offsets[0], regions)
        _check_rows(len(slopes), slopes.shape[1], regions)
        slopes = spread_own_slopes(slopes, regions)
    return ConditionalMap(slopes, offsets, regions)


def spread_own_slopes(own_slopes: np.ndarray, regions: bool) -> np.ndarray:
    """(P, m, m + 1), of regions (P, R, 2), slopes where nothing but a structure's own log-odds acts
    on it."""
    if regions:
        return own_slopes[..., None] * np.array([1.0, 0.0])
    num_structures = own_slopes.shape[-1]
    return own_slopes[..., None] * np.eye(num_structures, num_structures + 1)


def count_labels(num_structures: int, regions: bool) -> int:
    """Labels that a voxel can have: the classes, or out of and in a region."""
    return 2 if regions else num_structures + 1


def _shape_error(slopes: np.ndarray, offsets: np.ndarray) -> ValueError:
    return ValueError(
        f"slopes and offsets must be tables of one shape, labels by structures, got {slopes.shape}"
        f" and {offsets.shape}."
    )


def _check_rows(num_rows: int, num_structures: int, regions: bool) -> None:
    num_labels = count_labels(num_structures, regions)
    if num_rows != num_labels:
        raise ValueError(
            f"{num_structures} structures take 1 or {num_labels} rows of slopes, one a label, got"
            f" {num_rows}."
        )


def _check_values(slopes: np.ndarray, offsets: np.ndarray, positive: Sequence[np.ndarray]) -> None:
    are_finite = np.isfinite(slopes).all() and np.isfinite(offsets).all()
    if not are_finite or np.min(positive) <= 0:
        raise ValueError(f"slopes must be above 0 and all finite, got {slopes} and {offsets}.")
