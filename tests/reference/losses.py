"""Slow, obvious float64 losses: what the fast ones are held against.

Nothing here is clever. The neighbourhood is a Python loop over voxels and offsets, and each loss is
its formula for one voxel, written for many at once. The gradient is not derived by hand: a complex
step (Squire and Trapp 1998) gives it exactly, since a voxel's term depends on that voxel's logits
only.

Arrays are numpy, channels second: logits (B, K, *spatial), labels (B, *spatial) or (B, 1,
*spatial), regions (B, R, *spatial) with the ignore mask as an optional last channel. Every loss
returns (value, gradient).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.reference.metrics import bin_of

Array = np.ndarray
ValueAndGradient = tuple[float, Array]
Offset = tuple[int, ...]

STEP = 1e-30  # of the complex derivative: it has no subtraction, so the smaller the better


# The neighbourhood


def kernel_weights(
    kernel_size: int | tuple[int, ...], num_axes: int, prior: str, sigma: float
) -> dict[Offset, float]:
    """Weight of each neighbour, by its offset from the centre in voxels."""
    sizes = (kernel_size,) * num_axes if isinstance(kernel_size, int) else tuple(kernel_size)
    steps = [range(-(size // 2), size // 2 + 1) for size in sizes]
    weights = {}
    for offset in itertools.product(*steps):
        squared_distance = sum(step * step for step in offset)
        if prior == "mean":
            weights[offset] = 1.0
        else:
            weights[offset] = math.exp(-squared_distance / (2 * sigma**2))
    if prior == "svls":
        centre = (0,) * num_axes
        weights[centre] = 0.0
        weights[centre] = sum(weights.values())
    return weights


def neighborhood_proportions(
    labels: Array,
    num_classes: int,
    *,
    kernel_size: int | tuple[int, ...] = 3,
    prior: str = "mean",
    sigma: float = 1.0,
    padding: str = "valid",
    valid: Array | None = None,
) -> Array:
    """Share of each class in the neighbourhood, (B, K, *spatial); NaN where no neighbour counts."""
    labels = np.asarray(labels)
    if valid is None:
        valid = np.ones(labels.shape)
    valid = np.asarray(valid, bool)
    spatial = labels.shape[1:]
    weights = kernel_weights(kernel_size, len(spatial), prior, sigma)
    tau = np.full((len(labels), num_classes, *spatial), np.nan)
    for image in range(len(labels)):
        for centre in np.ndindex(spatial):
            weight_of_class = _class_weights(
                labels[image], valid[image], centre, weights, padding, num_classes
            )
            total = sum(weight_of_class)
            if total > 0:
                shares = np.array(weight_of_class[:num_classes]) / total
                tau[(image, slice(None), *centre)] = shares
    return tau


def _class_weights(
    labels: Array,
    valid: Array,
    centre: Offset,
    weights: dict[Offset, float],
    padding: str,
    num_classes: int,
) -> list[float]:
    """Weight of each class around one voxel of one image; the last is that of no class."""
    weight_of_class = [0.0] * (num_classes + 1)
    for offset, weight in weights.items():
        neighbour = tuple(c + step for c, step in zip(centre, offset))
        nearest = tuple(min(max(n, 0), size - 1) for n, size in zip(neighbour, labels.shape))
        if padding == "replicate":
            neighbour = nearest
        is_inside = neighbour == nearest
        if is_inside and valid[neighbour]:
            weight_of_class[int(labels[neighbour])] += weight
        elif not is_inside and padding == "background":
            weight_of_class[0] += weight
        elif not is_inside and padding == "zeros":
            weight_of_class[num_classes] += weight
    return weight_of_class


def region_proportions(regions: Array, *, valid: Array, **neighborhood: Any) -> Array:
    """Share of the neighbourhood that lies in each region, (B, R, *spatial)."""
    shares = []
    for region in np.moveaxis(regions.astype(int), 1, 0):
        out_and_in = neighborhood_proportions(region, 2, valid=valid, **neighborhood)
        shares.append(out_and_in[:, 1])
    return np.stack(shares, axis=1)


# Each loss for one voxel: terms for arrays (M, K) of logits; complex, so that they can be
# differentiated.


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.real.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _absolute(x: Array) -> Array:
    return np.where(x.real >= 0, x, -x)


def _relu(x: Array) -> Array:
    return np.where(x.real > 0, x, 0)


def _highest(logits: Array) -> Array:
    return np.take_along_axis(logits, logits.real.argmax(axis=1)[:, None], axis=1)


def _penalty(difference: Array, penalty: str) -> Array:
    return _absolute(difference) if penalty == "l1" else difference**2


def _over_classes(terms: Array, class_reduction: str) -> Array:
    return terms.mean(axis=1) if class_reduction == "mean" else terms.sum(axis=1)


def soft_cross_entropy_term(logits: Array, soft_labels: Array) -> Array:
    return -(soft_labels * _log_softmax(logits)).sum(axis=1)


def focal_term(logits: Array, one_hot: Array, gamma: float) -> Array:
    log_probs = _log_softmax(logits)
    prob_of_others = (np.exp(log_probs) * (1 - one_hot)).sum(axis=1)  # 1 - p_y without cancellation
    return -(prob_of_others**gamma) * (log_probs * one_hot).sum(axis=1)


def mbls_term(
    logits: Array, one_hot: Array, penalty_weight: float, margin: float, class_reduction: str
) -> Array:
    penalty = _over_classes(_relu(_highest(logits) - logits - margin), class_reduction)
    return soft_cross_entropy_term(logits, one_hot) + penalty_weight * penalty


def ecp_term(logits: Array, one_hot: Array, penalty_weight: float, class_reduction: str) -> Array:
    log_probs = _log_softmax(logits)
    entropy = _over_classes(-np.exp(log_probs) * log_probs, class_reduction)
    return soft_cross_entropy_term(logits, one_hot) - penalty_weight * entropy


@dataclass(frozen=True)
class NaclPenalty:
    """The settings of NACL's penalty."""

    penalty_weight: float = 0.1
    penalty: str = "l1"
    space: str = "logits"
    class_reduction: str = "mean"
    prior_scale: float = 1.0

    def term(self, logits: Array, one_hot: Array, tau: Array) -> Array:
        position = np.exp(_log_softmax(logits)) if self.space == "softmax" else logits
        terms = _penalty(self.prior_scale * tau - position, self.penalty)
        penalty = _over_classes(terms, self.class_reduction)
        return soft_cross_entropy_term(logits, one_hot) + self.penalty_weight * penalty

    def region_term(self, logits: Array, membership: Array, tau: Array) -> Array:
        """The same for one region, (M, 1); NACL alone reads the logits themselves."""
        cross_entropy = soft_cross_entropy_term(_two_classes(logits), _out_and_in(membership))
        prob = np.exp(_log_softmax(_two_classes(logits)))[:, 1:]
        position = 2 * prob - 1 if self.space == "softmax" else logits
        penalty = _penalty(self.prior_scale * (2 * tau - 1) - position, self.penalty)[:, 0]
        if self.penalty == "l2":
            penalty = penalty / 2
        if self.class_reduction == "mean":
            penalty = penalty / 2
        return cross_entropy + self.penalty_weight * penalty


# One region is two classes, out and in, whose logits (0, l) differ by the region's.


def _two_classes(logits: Array) -> Array:
    return np.concatenate([np.zeros_like(logits), logits], axis=1)


def _out_and_in(share: Array) -> Array:
    return np.concatenate([1 - share, share], axis=1)


# From the terms of voxels to the loss of a batch


def _rows(array: Array) -> Array:
    """(B, K, *spatial) -> (voxels, K)."""
    array = np.asarray(array, float)
    return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])


def _mean_over_valid(
    term: Callable[..., Array], logits: Array, valid: Array, *fixed: Array
) -> ValueAndGradient:
    """Mean of term(logits, *fixed) over valid voxels, and its gradient with respect to logits."""
    rows = _rows(logits)
    keep = np.asarray(valid).reshape(-1)
    num_valid = int(keep.sum())
    gradient = np.zeros_like(rows)
    value = 0.0
    if num_valid > 0:
        kept_logits = rows[keep].astype(complex)
        kept_fixed = [_rows(array)[keep] for array in fixed]
        value = float(term(kept_logits, *kept_fixed).real.sum() / num_valid)
        for channel in range(rows.shape[1]):
            stepped = kept_logits.copy()
            stepped[:, channel] += 1j * STEP
            gradient[keep, channel] = term(stepped, *kept_fixed).imag / STEP / num_valid
    batch, channels, *spatial = logits.shape
    return value, np.moveaxis(gradient.reshape(batch, *spatial, channels), -1, 1)


@dataclass(frozen=True)
class Truth:
    """What logits are held against.

    ``membership`` is 1 where a voxel is of a class, or in a region, (B, K, *spatial); ``labels``
    (B, *spatial) are those of classes, None for regions; ``valid`` (B, *spatial) is False where a
    voxel is ignored.
    """

    membership: Array
    labels: Array | None
    valid: Array


def read_truth(target: Array, logits: Array, ignore_label: int | None, regions: bool) -> Truth:
    target = np.asarray(target)
    num_channels = logits.shape[1]
    if regions:
        has_mask = target.shape[1] == num_channels + 1
        valid = target[:, -1] == 0 if has_mask else np.ones(target[:, 0].shape, bool)
        return Truth(target[:, :num_channels].astype(float), None, valid)
    labels = target[:, 0] if target.ndim == logits.ndim else target
    valid = np.ones(labels.shape, bool)
    if ignore_label is not None:
        valid = labels != ignore_label
    labels = np.where(valid, labels, 0).astype(int)
    one_hot = np.stack([labels == k for k in range(num_channels)], axis=1).astype(float)
    return Truth(one_hot, labels, valid)


def _evaluate(
    logits: Array,
    target: Array,
    term: Callable[..., Array],
    *,
    region_term: Callable[..., Array] | None = None,
    soften: Callable[[Array, int], Array] | None = None,
    neighborhood: dict[str, Any] | None = None,
    ignore_label: int | None = None,
    regions: bool = False,
) -> ValueAndGradient:
    """One loss in either label space: the mean over voxels of ``term(logits, truth[, tau])``.

    Args:
        region_term: The same for one region; without it the region is taken for two classes, out
            and in.
        soften: Makes other shares of the classes of the truth, for so many classes.
        neighborhood: Settings of tau, for terms that take it.
    """
    logits = np.asarray(logits, float)
    truth = read_truth(target, logits, ignore_label, regions)
    num_classes = 2 if regions else logits.shape[1]
    shares = truth.membership
    if soften is not None:
        shares = soften(shares, num_classes)
    fixed = [shares]
    if neighborhood is not None and regions:
        fixed.append(region_proportions(truth.membership, valid=truth.valid, **neighborhood))
    elif neighborhood is not None:
        fixed.append(
            neighborhood_proportions(truth.labels, num_classes, valid=truth.valid, **neighborhood)
        )
    if not regions:
        return _mean_over_valid(term, logits, truth.valid, *fixed)

    def term_of_two_classes(rows: Array, *shares_inside: Array) -> Array:
        return term(_two_classes(rows), *[_out_and_in(share) for share in shares_inside])

    value = 0.0
    gradient = np.zeros_like(logits)
    num_regions = logits.shape[1]
    for region in range(num_regions):
        channel = slice(region, region + 1)
        region_value, region_gradient = _mean_over_valid(
            region_term or term_of_two_classes,
            logits[:, channel],
            truth.valid,
            *[array[:, channel] for array in fixed],
        )
        value += region_value / num_regions
        gradient[:, channel] = region_gradient / num_regions
    return value, gradient


# The losses; ``space`` are ignore_label and regions


def cross_entropy(logits: Array, target: Array, **space: Any) -> ValueAndGradient:
    return _evaluate(logits, target, soft_cross_entropy_term, **space)


def label_smoothing(
    logits: Array, target: Array, *, smoothing: float = 0.1, **space: Any
) -> ValueAndGradient:
    def soften(membership: Array, num_classes: int) -> Array:
        return (1 - smoothing) * membership + smoothing / num_classes

    return _evaluate(logits, target, soft_cross_entropy_term, soften=soften, **space)


def focal(logits: Array, target: Array, *, gamma: float = 3.0, **space: Any) -> ValueAndGradient:
    def term(rows: Array, one_hot: Array) -> Array:
        return focal_term(rows, one_hot, gamma)

    return _evaluate(logits, target, term, **space)


def ecp(
    logits: Array,
    target: Array,
    *,
    penalty_weight: float = 0.1,
    class_reduction: str = "mean",
    **space: Any,
) -> ValueAndGradient:
    def term(rows: Array, one_hot: Array) -> Array:
        return ecp_term(rows, one_hot, penalty_weight, class_reduction)

    return _evaluate(logits, target, term, **space)


def mbls(
    logits: Array,
    target: Array,
    *,
    penalty_weight: float = 0.1,
    margin: float = 5.0,
    class_reduction: str = "mean",
    **space: Any,
) -> ValueAndGradient:
    def term(rows: Array, one_hot: Array) -> Array:
        return mbls_term(rows, one_hot, penalty_weight, margin, class_reduction)

    return _evaluate(logits, target, term, **space)


def svls(
    logits: Array,
    target: Array,
    *,
    sigma: float = 2.0,
    kernel_size: int | tuple[int, ...] = 3,
    padding: str = "replicate",
    **space: Any,
) -> ValueAndGradient:
    def term(rows: Array, one_hot: Array, tau: Array) -> Array:
        return soft_cross_entropy_term(rows, tau)

    neighborhood = {"prior": "svls", "sigma": sigma, "kernel_size": kernel_size, "padding": padding}
    return _evaluate(logits, target, term, neighborhood=neighborhood, **space)


def nacl(
    logits: Array,
    target: Array,
    *,
    kernel_size: int | tuple[int, ...] = 3,
    prior: str = "mean",
    sigma: float = 1.0,
    padding: str = "valid",
    ignore_label: int | None = None,
    regions: bool = False,
    **settings: Any,
) -> ValueAndGradient:
    penalty = NaclPenalty(**settings)
    neighborhood = {"prior": prior, "sigma": sigma, "kernel_size": kernel_size, "padding": padding}
    return _evaluate(
        logits,
        target,
        penalty.term,
        region_term=penalty.region_term,
        neighborhood=neighborhood,
        ignore_label=ignore_label,
        regions=regions,
    )


def ace(
    logits: Array,
    target: Array,
    *,
    penalty_weight: float = 1.0,
    n_bins: int = 20,
    ignore_label: int | None = None,
    regions: bool = False,
) -> ValueAndGradient:
    """Cross-entropy plus the average calibration error, by image, channel and bin.

    The gradient of the error is derived by hand: d|mean p - share| / dp = sign / n.
    """
    logits = np.asarray(logits, float)
    truth = read_truth(target, logits, ignore_label, regions)
    value, gradient = cross_entropy(logits, target, ignore_label=ignore_label, regions=regions)
    images = [image for image in range(len(logits)) if truth.valid[image].any()]
    for image in images:
        rows = _rows(logits[[image]])
        membership = _rows(truth.membership[[image]])
        valid_voxels = np.flatnonzero(truth.valid[image])
        log_probs = -np.logaddexp(0, -rows) if regions else _log_softmax(rows)
        probs = np.exp(log_probs)
        num_channels = probs.shape[1]
        weight = penalty_weight / len(images) / num_channels
        per_prob = np.zeros_like(probs)
        for k in range(num_channels):
            error, error_per_prob = _average_error(
                probs[:, k], membership[:, k], valid_voxels, n_bins
            )
            value += weight * error
            per_prob[:, k] = weight * error_per_prob
        # dp_k / dl_j = p_k ([j = k] - p_j) for a softmax, p (1 - p) for a sigmoid
        others = probs * per_prob
        if not regions:
            others = others.sum(axis=1, keepdims=True)
        per_logit = probs * (per_prob - others)
        gradient[image] += np.moveaxis(per_logit.reshape(*logits.shape[2:], num_channels), -1, 0)
    return value, gradient


def _average_error(probs: Array, membership: Array, voxels: Array, n_bins: int) -> ValueAndGradient:
    """Mean of |mean p - share| over the bins that hold a voxel, and its gradient by p."""
    voxels_of_bin: dict[int, list[int]] = {}
    for voxel in voxels:
        voxels_of_bin.setdefault(bin_of(probs[voxel], n_bins), []).append(voxel)
    error = 0.0
    gradient = np.zeros_like(probs)
    for members in voxels_of_bin.values():
        gap = (probs[members] - membership[members]).mean()
        error += abs(gap) / len(voxels_of_bin)
        gradient[members] = np.sign(gap) / len(members) / len(voxels_of_bin)
    return error, gradient
