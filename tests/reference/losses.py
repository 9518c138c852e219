"""Slow, obvious float64 losses: what the fast ones are held against.

Nothing here is clever. The neighbourhood is a Python loop over voxels and offsets, and each loss is its formula for one
voxel, written for many at once. The gradient is not derived by hand: a complex step (Squire and Trapp 1998) gives it
exactly, since a voxel's term depends on that voxel's logits only.

Arrays are numpy, channels second: logits (B, K, *spatial), labels (B, *spatial) or (B, 1, *spatial), regions
(B, R, *spatial) with the ignore mask as an optional last channel. Every loss returns (value, gradient).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from tests.reference.metrics import bin_of

STEP = 1e-30  # of the complex derivative: it has no subtraction, so the smaller the better


def kernel_weights(kernel_size: int | tuple[int, ...], spatial_dims: int, prior: str, sigma: float) -> dict:
    """Weight of each neighbour, by its offset from the centre in voxels."""
    sizes = (kernel_size,) * spatial_dims if isinstance(kernel_size, int) else tuple(kernel_size)
    weights = {}
    for offset in itertools.product(*[range(-(size // 2), size // 2 + 1) for size in sizes]):
        squared_distance = sum(step * step for step in offset)
        weights[offset] = 1.0 if prior == "mean" else math.exp(-squared_distance / (2 * sigma**2))
    if prior == "svls":
        centre = (0,) * spatial_dims
        weights[centre] = sum(weight for offset, weight in weights.items() if offset != centre)
    return weights


def neighborhood_proportions(
    labels, num_classes: int, *, kernel_size=3, prior="mean", sigma=1.0, padding="valid", valid=None
) -> np.ndarray:
    """Share of each class in the neighbourhood, (B, K, *spatial); NaN where no neighbour counts."""
    labels = np.asarray(labels)
    valid = np.ones(labels.shape, bool) if valid is None else np.asarray(valid, bool)
    spatial = labels.shape[1:]
    weights = kernel_weights(kernel_size, len(spatial), prior, sigma)
    tau = np.full((labels.shape[0], num_classes, *spatial), np.nan)
    for batch in range(labels.shape[0]):
        for centre in itertools.product(*[range(size) for size in spatial]):
            weight_of_class = [0.0] * num_classes
            total = 0.0
            for offset, weight in weights.items():
                place = tuple(c + o for c, o in zip(centre, offset))
                if padding == "replicate":
                    place = tuple(min(max(p, 0), size - 1) for p, size in zip(place, spatial))
                inside = all(0 <= p < size for p, size in zip(place, spatial))
                if not inside:
                    if padding == "valid":
                        continue
                    total += weight
                    if padding == "background":
                        weight_of_class[0] += weight
                    continue
                if not valid[(batch, *place)]:
                    continue
                total += weight
                weight_of_class[int(labels[(batch, *place)])] += weight
            if total > 0:
                tau[(batch, slice(None), *centre)] = np.array(weight_of_class) / total
    return tau


def region_proportions(regions, *, valid=None, **settings) -> np.ndarray:
    """Share of the neighbourhood that lies in each region, (B, R, *spatial)."""
    regions = np.asarray(regions)
    shares = [
        neighborhood_proportions(regions[:, r].astype(int), 2, valid=valid, **settings)[:, 1]
        for r in range(regions.shape[1])
    ]
    return np.stack(shares, axis=1)


# One voxel's terms, for arrays (M, K) of logits; complex, so that they can be differentiated.


def _log_softmax(logits):
    shifted = logits - logits.real.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _absolute(x):
    return np.where(x.real >= 0, x, -x)


def _relu(x):
    return np.where(x.real > 0, x, 0)


def _highest(logits):
    return np.take_along_axis(logits, logits.real.argmax(axis=1)[:, None], axis=1)


def _penalty(difference, penalty):
    return _absolute(difference) if penalty == "l1" else difference**2


def _over_classes(terms, class_reduction):
    return terms.mean(axis=1) if class_reduction == "mean" else terms.sum(axis=1)


def soft_cross_entropy_term(logits, soft_labels):
    return -(soft_labels * _log_softmax(logits)).sum(axis=1)


def focal_term(logits, one_hot, gamma):
    log_probs = _log_softmax(logits)
    prob_of_others = (np.exp(log_probs) * (1 - one_hot)).sum(axis=1)  # 1 - p_y without cancellation
    return -(prob_of_others**gamma) * (log_probs * one_hot).sum(axis=1)


def nacl_term(logits, one_hot, tau, penalty_weight, penalty, space, class_reduction, prior_scale):
    position = np.exp(_log_softmax(logits)) if space == "softmax" else logits
    terms = _penalty(prior_scale * tau - position, penalty)
    return soft_cross_entropy_term(logits, one_hot) + penalty_weight * _over_classes(terms, class_reduction)


def mbls_term(logits, one_hot, penalty_weight, margin, class_reduction):
    terms = _relu(_highest(logits) - logits - margin)
    return soft_cross_entropy_term(logits, one_hot) + penalty_weight * _over_classes(terms, class_reduction)


def ecp_term(logits, one_hot, penalty_weight, class_reduction):
    log_probs = _log_softmax(logits)
    terms = -np.exp(log_probs) * log_probs
    return soft_cross_entropy_term(logits, one_hot) - penalty_weight * _over_classes(terms, class_reduction)


# One region is two classes, out and in, whose logits (0, l) differ by the region's; NACL alone reads the logits.


def _two_classes(logits):
    return np.concatenate([np.zeros_like(logits), logits], axis=1)


def _in_and_out(share):
    return np.concatenate([1 - share, share], axis=1)


def region_nacl_term(logits, membership, tau, penalty_weight, penalty, space, class_reduction, prior_scale):
    prob = np.exp(_log_softmax(_two_classes(logits)))[:, 1:]
    position = 2 * prob - 1 if space == "softmax" else logits
    term = _penalty(prior_scale * (2 * tau - 1) - position, penalty)[:, 0]
    halvings = (penalty == "l2") + (class_reduction == "mean")
    cross_entropy = soft_cross_entropy_term(_two_classes(logits), _in_and_out(membership))
    return cross_entropy + penalty_weight * term / 2**halvings


def _rows(array):
    """(B, K, *spatial) -> (voxels, K)."""
    array = np.asarray(array, float)
    return np.moveaxis(array, 1, -1).reshape(-1, array.shape[1])


def _mean_over_valid(term: Callable, logits, valid, *per_voxel) -> tuple[float, np.ndarray]:
    """Mean of a voxel's term over the valid voxels, and its gradient with respect to all logits."""
    rows, keep = _rows(logits), np.asarray(valid).reshape(-1)
    gradient = np.zeros_like(rows)
    count = int(keep.sum())
    value = 0.0
    if count:
        fixed = [_rows(array)[keep] for array in per_voxel]
        value = float(term(rows[keep].astype(complex), *fixed).real.sum() / count)
        for channel in range(rows.shape[1]):
            stepped = rows[keep].astype(complex)
            stepped[:, channel] += 1j * STEP
            gradient[keep, channel] = term(stepped, *fixed).imag / STEP / count
    shape = np.asarray(logits).shape
    return value, np.moveaxis(gradient.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _one_hot(labels, num_classes):
    return np.stack([labels == k for k in range(num_classes)], axis=1).astype(float)


def _read(logits, target, ignore_label, regions):
    """Labels (classes only), what is of each class or in each region (B, K, *spatial), and what is valid."""
    target, num_channels = np.asarray(target), logits.shape[1]
    if regions:
        membership = target[:, :num_channels].astype(float)
        has_mask = target.shape[1] == num_channels + 1
        return None, membership, target[:, -1] == 0 if has_mask else np.ones(membership[:, 0].shape, bool)
    labels = target[:, 0] if target.ndim == logits.ndim else target
    valid = np.ones(labels.shape, bool) if ignore_label is None else labels != ignore_label
    labels = np.where(valid, labels, 0).astype(int)
    return labels, _one_hot(labels, num_channels), valid


def _evaluate(
    logits, target, term, *settings, region_term=None, ignore_label=None, regions=False, soften=None, neighborhood=None
):
    """One loss in either label space: the mean of term(logits, hard or softened labels[, tau], *settings) of voxels."""
    logits, num_channels = np.asarray(logits, float), logits.shape[1]
    labels, membership, valid = _read(logits, target, ignore_label, regions)
    soften = soften or (lambda hard, num_classes: hard)
    if not regions:
        fixed = [soften(membership, num_channels)]
        if neighborhood is not None:
            fixed.append(neighborhood_proportions(labels, num_channels, valid=valid, **neighborhood))
        return _mean_over_valid(lambda *rows: term(*rows, *settings), logits, valid, *fixed)

    def of_region(rows, *shares):
        if region_term is not None:
            return region_term(rows, *shares, *settings)
        return term(_two_classes(rows), *map(_in_and_out, shares), *settings)

    fixed = [soften(membership, 2)]
    if neighborhood is not None:
        fixed.append(region_proportions(membership, valid=valid, **neighborhood))
    value, gradient = 0.0, np.zeros_like(logits)
    for r in range(num_channels):
        one = slice(r, r + 1)
        region_value, region_gradient = _mean_over_valid(
            of_region, logits[:, one], valid, *[array[:, one] for array in fixed]
        )
        value += region_value / num_channels
        gradient[:, one] = region_gradient / num_channels
    return value, gradient


def cross_entropy(logits, target, **space):
    return _evaluate(logits, target, soft_cross_entropy_term, **space)


def label_smoothing(logits, target, *, smoothing=0.1, **space):
    def soften(hard, num_classes):
        return (1 - smoothing) * hard + smoothing / num_classes

    return _evaluate(logits, target, soft_cross_entropy_term, soften=soften, **space)


def focal(logits, target, *, gamma=3.0, **space):
    return _evaluate(logits, target, focal_term, gamma, **space)


def ecp(logits, target, *, penalty_weight=0.1, class_reduction="mean", **space):
    return _evaluate(logits, target, ecp_term, penalty_weight, class_reduction, **space)


def mbls(logits, target, *, penalty_weight=0.1, margin=5.0, class_reduction="mean", **space):
    return _evaluate(logits, target, mbls_term, penalty_weight, margin, class_reduction, **space)


def svls(logits, target, *, sigma=2.0, kernel_size=3, padding="replicate", **space):
    around = {"prior": "svls", "sigma": sigma, "kernel_size": kernel_size, "padding": padding}
    return _evaluate(
        logits, target, lambda rows, hard, tau: soft_cross_entropy_term(rows, tau), neighborhood=around, **space
    )


def nacl(
    logits,
    target,
    *,
    penalty_weight=0.1,
    penalty="l1",
    space="logits",
    class_reduction="mean",
    prior_scale=1.0,
    ignore_label=None,
    regions=False,
    **around,
):
    around = {"kernel_size": 3, "prior": "mean", "sigma": 1.0, "padding": "valid"} | around
    settings = (penalty_weight, penalty, space, class_reduction, prior_scale)
    given = {"region_term": region_nacl_term, "neighborhood": around, "ignore_label": ignore_label, "regions": regions}
    return _evaluate(logits, target, nacl_term, *settings, **given)


def ace(logits, target, *, penalty_weight=1.0, n_bins=20, ignore_label=None, regions=False):
    """The bins of an image hold its voxels' places; the gradient is derived: d|mean p - share| / dp = sign / n."""
    logits, num_channels = np.asarray(logits, float), logits.shape[1]
    _, membership, valid = _read(logits, target, ignore_label, regions)
    value, gradient = cross_entropy(logits, target, ignore_label=ignore_label, regions=regions)
    images = [image for image in range(len(logits)) if valid[image].any()]
    for image in images:
        rows, hits = _rows(logits[image : image + 1]), _rows(membership[image : image + 1])
        probs = np.exp(-np.logaddexp(0, -rows) if regions else _log_softmax(rows))
        per_prob = np.zeros_like(probs)
        for k in range(num_channels):
            places: dict[int, list[int]] = {}
            for voxel in np.flatnonzero(valid[image].reshape(-1)):
                places.setdefault(bin_of(probs[voxel, k], n_bins), []).append(voxel)
            weight = penalty_weight / len(images) / num_channels / len(places)
            for voxels in places.values():
                gap = sum(probs[voxel, k] - hits[voxel, k] for voxel in voxels) / len(voxels)
                value += weight * abs(gap)
                per_prob[voxels, k] = weight * np.sign(gap) / len(voxels)
        others = probs * per_prob if regions else (probs * per_prob).sum(axis=1, keepdims=True)
        per_logit = probs * (per_prob - others)
        gradient[image] += np.moveaxis(per_logit.reshape(*logits.shape[2:], num_channels), -1, 0)
    return value, gradient
