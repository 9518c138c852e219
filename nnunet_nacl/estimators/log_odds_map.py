"""Calibration maps: they change the log-odds of each voxel, depending on the label that the network
chose there.

With the log-odds u and the total v of :mod:`nnunet_nacl.estimators.log_odds`, and c the most
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

A map with one row for all labels is affine in the logits (but for the clipping), so that it
commutes with averages of logits and with linear resampling: a temperature. Any other differs by
label and is applied to the final probabilities.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nnunet_nacl.estimators.log_odds import (
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


@dataclass(frozen=True, eq=False)
class LogOddsMap:
    """One calibration of one set of structures; m is K - 1 for K classes, R for R regions.

    Attributes:
        coefficients: (K, m, m + 2) a_ckj, g_ck and b_ck; of regions (2, R, 3) a_cr, g_cr and b_cr,
            out of the region and in. (1, ...): the same for all labels, by each structure's own
            slope and offset alone. A structure's own slope, of regions also a + g, is above 0.
        regions: Whether the channels are sigmoid regions.

    Raises:
        ValueError: The shape does not fit, an own slope is not above 0, a map of one row has other
            coefficients, or a number is not finite.
    """

    coefficients: np.ndarray
    regions: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "coefficients", np.asarray(self.coefficients, dtype=np.float64))
        shape = self.coefficients.shape
        if len(shape) != 3 or not shape[1] or shape[2] != (3 if self.regions else shape[1] + 2):
            raise ValueError(f"a map takes labels by structures by coefficients, got {shape}.")
        check_num_rows(shape[0], shape[1], self.regions)
        least_slope = self.own_slopes.min()
        if self.regions:  # the coefficient of -log(1 - p)
            least_slope = min(least_slope, self.coefficients[..., :2].sum(-1).min())
        if not np.isfinite(self.coefficients).all() or least_slope <= 0:
            raise ValueError(f"slopes must be above 0 and all finite, got {self.coefficients}.")
        if self.is_affine and np.count_nonzero(self.coefficients[..., :-1]) > self.num_structures:
            raise ValueError("a map with one row for all labels has no slopes but the own ones.")

    @property
    def num_structures(self) -> int:
        """m."""
        return self.coefficients.shape[1]

    @property
    def is_affine(self) -> bool:
        """Whether it is the same for all labels, and so commutes with averages of logits."""
        return len(self.coefficients) == 1

    @property
    def own_slopes(self) -> np.ndarray:
        """(K, m) a_ckk, (2, R) a_cr, or (1, m) where they are the same for all labels."""
        if self.regions:
            return self.coefficients[..., 0]
        return np.diagonal(self.coefficients, axis1=1, axis2=2).copy()

    @property
    def offsets(self) -> np.ndarray:
        """(K, m) b_ck, (2, R) b_cr, or (1, m) where they are the same for all labels."""
        return self.coefficients[..., -1]

    @property
    def digest(self) -> str:
        """Hash of the map, by which results name it.

        Its coefficients are too long for that: they grow with the cube of the structures.
        """
        slopes = self.own_slopes if self.is_affine else self.coefficients[..., :-1]
        content = hashlib.blake2b(repr((slopes.shape, self.regions)).encode(), digest_size=16)
        content.update(np.ascontiguousarray(slopes).tobytes())
        content.update(np.ascontiguousarray(self.offsets).tobytes())
        return content.hexdigest()

    def of_label(self, label: int) -> np.ndarray:
        """(m, m + 2), of regions (R, 3), the coefficients where the network chose a label."""
        return self.coefficients[0 if self.is_affine else label]

    def of_every_label(self) -> np.ndarray:
        """(K, m, m + 2), of regions (2, R, 3), a copy of the coefficients with a row for each
        label."""
        num_labels = count_map_labels(self.num_structures, self.regions)
        num_repeats = num_labels if self.is_affine else 1
        return np.repeat(self.coefficients, num_repeats, axis=0)

    def to_probabilities(self, odds: Tensor, label: Tensor) -> Tensor:
        """(C, n) calibrated probabilities.

        Args:
            odds: (m, n) log-odds as :func:`~nnunet_nacl.estimators.log_odds.log_odds` gives them.
            label: What :func:`~nnunet_nacl.metrics.inputs.find_most_probable` gives.
        """
        mapped = self._map(odds, label)
        unchanged = probabilities(odds, self.regions)
        return torch.where(is_certain_background(odds), unchanged, mapped)

    def _map(self, odds: Tensor, label: Tensor) -> Tensor:
        """(C, n) calibrated probabilities of voxels that are no certain background."""
        clipped = clip_log_odds(odds, self.regions)
        return probabilities(self._map_clipped(clipped, label), self.regions)

    def __call__(self, probs: np.ndarray, inside: tuple[slice, ...] | None = None) -> np.ndarray:
        """Calibrates the probabilities of one case.

        Args:
            probs: (C, *spatial) as nnU-Net saves them. What lies outside nnU-Net's crop stays as it
                is: no network has seen it.
            inside: Where in ``probs`` that crop is; None looks for it, see
                :func:`~nnunet_nacl.estimators.log_odds.network_box`.

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

    def _map_clipped(self, odds: Tensor, label: Tensor) -> Tensor:
        """(m, n) u' of voxels by their (m, n) clipped log-odds and their label."""
        if self.is_affine:  # a matrix product with a row of zeros takes ten times as long
            slopes = torch.from_numpy(self.own_slopes[0]).to(odds)
            offsets = torch.from_numpy(self.offsets[0]).to(odds)
            return torch.addcmul(offsets[:, None], odds, slopes[:, None])
        if self.regions:
            outside = self._map_regions(odds, 0)
            inside = self._map_regions(odds, 1)
            return torch.where(label.bool(), inside, outside)
        return self._map_classes(odds, label)

    def _map_regions(self, odds: Tensor, label: int) -> Tensor:
        """(R, n) u' of voxels that are all outside (0) or all inside (1) the regions."""
        slopes, slopes_of_total, offsets = torch.from_numpy(self.coefficients[label].T).to(odds)
        total = torch.nn.functional.softplus(odds)
        return odds * slopes[:, None] + total * slopes_of_total[:, None] + offsets[:, None]

    def _map_classes(self, odds: Tensor, label: Tensor) -> Tensor:
        """(m, n) u' by the row of each voxel's label."""
        # Voxels are put in the order of their labels, so that those of a label are one matrix
        # product.
        labels = label.cpu().numpy().astype(np.uint16)  # whose sort takes linear time
        order = np.argsort(labels, kind="stable")
        position_in_order = np.empty_like(order)
        position_in_order[order] = np.arange(len(order))
        voxels_by_label = np.bincount(labels, minlength=len(self.coefficients)).tolist()
        num_structures, num_voxels = odds.shape
        features = odds.new_ones((num_structures + 2, num_voxels))  # u, v and 1
        order_on_device = torch.from_numpy(order).to(odds.device)
        ordered = torch.index_select(odds, 1, order_on_device, out=features[:num_structures])
        features[num_structures] = total_log_odds(ordered)
        mapped = torch.empty_like(odds)
        groups = zip(
            torch.from_numpy(self.coefficients).to(odds),
            features.split(voxels_by_label, dim=1),
            mapped.split(voxels_by_label, dim=1),
        )
        for row, features_of_label, mapped_of_label in groups:
            torch.mm(row, features_of_label, out=mapped_of_label)
        # several times as fast as copying each voxel to its place
        return mapped.index_select(1, torch.from_numpy(position_in_order).to(odds.device))


def map_from_tables(slopes: ArrayLike, offsets: ArrayLike, regions: bool = False) -> LogOddsMap:
    """The map of slopes and offsets.

    Args:
        slopes: (m,) or (1, m): the same for all labels. (P, m): each structure's own slope, P the
            number of labels (K, or 2 for regions: out and in). (K, m, m + 1): all a_ckj, then g_ck;
            of regions (2, R, 2) a_cr and g_cr.
        offsets: (m,), (1, m) or (P, m).
        regions: Whether the channels are sigmoid regions.

    Raises:
        ValueError: Shapes do not fit, an own slope is not above 0, or a number is not finite.
    """
    slopes = np.atleast_2d(np.asarray(slopes, dtype=np.float64))
    offsets = np.atleast_2d(np.asarray(offsets, dtype=np.float64))
    check_tables(slopes, offsets, regions)
    if slopes.ndim == 2:  # nothing but a structure's own log-odds acts on it
        num_structures = slopes.shape[1]
        own = np.array([[1.0, 0.0]]) if regions else np.eye(num_structures, num_structures + 1)
        slopes = slopes[..., None] * own
    return LogOddsMap(np.concatenate([slopes, offsets[..., None]], -1), regions)


def check_tables(slopes: np.ndarray, offsets: np.ndarray, regions: bool) -> None:
    """ValueError where tables of slopes and offsets are not those of a map, see
    :func:`map_from_tables`."""
    if offsets.ndim != 2 or slopes.shape[:2] != offsets.shape:
        raise ValueError(
            "slopes and offsets must be tables of one shape, labels by structures, got"
            f" {slopes.shape} and {offsets.shape}."
        )
    check_num_rows(len(offsets), offsets.shape[1], regions)


def check_num_rows(num_rows: int, num_structures: int, regions: bool) -> None:
    """ValueError where a map of so many structures has other rows than one, or one a label."""
    num_labels = count_map_labels(num_structures, regions)
    if num_rows not in (1, num_labels):
        raise ValueError(
            f"{num_structures} structures take 1 or {num_labels} rows of slopes, one a label, got"
            f" {num_rows}."
        )


def count_map_labels(num_structures: int, regions: bool) -> int:
    """Labels that a voxel can have: the classes, or out of and in a region."""
    return 2 if regions else num_structures + 1
