"""Confidence, entropy and mutual information of each voxel: pure functions of arrays.

All lie in [0, 1]. Classes (softmax) have one form. Regions (sigmoid) are two-class problems, in or out, so each region
r with probability p_r has a binary form of its own; what stands for the voxel is its least certain region. A mean over
regions would let the certain regions of a voxel hide the uncertain one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.numbers.checks import check_chunk, parts, read_probs

Array = TypeVar("Array", np.ndarray, Tensor)

_BLOCK_VOXELS = 1 << 16  # the working memory stays in the cache, and double precision costs no second copy of a case


def confidence(probs: Array, *, regions: bool = False, aggregate: bool = True, check_values: bool = True) -> Array:
    """Probability of the predicted class: max_k p_k, from 1/K (undecided) to 1.

    Regions: c_r = max(p_r, 1 - p_r), from 1/2 to 1; the voxel has the smallest.

    Args:
        probs: (K, *spatial) class probabilities or (R, *spatial) region probabilities, any floating type.
        regions: Whether these are sigmoid regions.
        aggregate: For regions, one value for the voxel; else all of shape (R, *spatial). No effect on classes.
        check_values: Check that the values are probabilities, and sum to 1 if they are classes'.

    Returns:
        (*spatial) array or tensor, as given; float32, or float64 for float64.

    Raises:
        ValueError: Wrong shape or type, or values that are no probabilities.

    Example:
        >>> confidence(np.array([[0.7], [0.2], [0.1]]))
        array([0.7])
    """
    return _by_block(_confidence, probs, regions, aggregate, check_values, least_certain="amin")


def normalised_entropy(
    probs: Array, *, regions: bool = False, aggregate: bool = True, check_values: bool = True
) -> Array:
    """Entropy over the largest that there can be: -sum_k p_k log p_k / log K, from 0 (certain) to 1 (uniform).

    Regions: h_r = -(p_r log p_r + (1 - p_r) log(1 - p_r)) / log 2; the voxel has the largest. Values that rounding
    pushes over 1 are set to 1. Arguments, result and errors as :func:`confidence`.

    Example:
        >>> normalised_entropy(np.array([[0.5], [0.5]]))
        array([1.])
    """
    return _by_block(_entropy, probs, regions, aggregate, check_values, least_certain="amax")


def mutual_information(members: Sequence[Array] | Array, *, regions: bool = False, aggregate: bool = True) -> Array:
    """What the members disagree about: H(mean_m p_m) - mean_m H(p_m), H the normalised entropy.

    From 0 (all members say the same, however unsure) to 1 (each sure, all K classes equally often). In units of log K
    as the entropies. Regions: the same for each region in units of log 2, and the voxel has the largest. With one
    member it is 0 by definition.

    Args:
        members: M arrays or tensors of one shape, or one with a leading axis of members; see :func:`confidence`.
        regions: Whether these are sigmoid regions.
        aggregate: For regions, one value for the voxel.

    Returns:
        (*spatial) array or tensor.

    Raises:
        ValueError: No member, members of several shapes, or values that are no probabilities.

    Example:
        >>> mutual_information([np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])])
        array([1.])
    """
    shapes = list(dict.fromkeys(tuple(read_probs(probs, regions, least_axes=1).shape) for probs in members))
    if len(shapes) != 1:
        raise ValueError(f"members must be arrays of one shape, got {' and '.join(map(str, shapes)) or 'none'}.")
    apart: dict[str, bool] = {"regions": regions, "aggregate": False}
    of_mean = normalised_entropy(_mean(members), **apart)
    disputed = (of_mean - _mean([normalised_entropy(probs, **apart) for probs in members])).clip(0, 1)
    if not (regions and aggregate):
        return disputed
    return disputed.max(axis=0) if isinstance(disputed, np.ndarray) else disputed.amax(0)


def _mean(values: Sequence[Array] | Array) -> Array:
    return sum(values[1:], values[0]) / len(values)


def _confidence(chunk: Tensor, regions: bool) -> Tensor:
    return torch.maximum(chunk, 1 - chunk) if regions else chunk.amax(0, keepdim=True)


def _entropy(chunk: Tensor, regions: bool) -> Tensor:
    terms = torch.special.entr(chunk)
    if regions:
        return ((terms + torch.special.entr(1 - chunk)) / math.log(2)).clamp(0, 1)
    return (terms.sum(0, keepdim=True) / math.log(chunk.shape[0])).clamp(0, 1)


def _by_block(
    function: Callable[[Tensor, bool], Tensor],
    probs: np.ndarray | Tensor,
    regions: bool,
    aggregate: bool,
    check_values: bool,
    *,
    least_certain: str,
) -> Any:
    tensor = read_probs(probs, regions, least_axes=1)
    flat, by_region = tensor.reshape(len(tensor), -1), regions and not aggregate
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    result = torch.empty((len(tensor) if by_region else 1, flat.shape[1]), dtype=dtype, device=tensor.device)
    for part in parts(flat.shape[1], _BLOCK_VOXELS):
        chunk = flat[:, part].double()
        if check_values:
            check_chunk(chunk, regions)
        values = function(chunk, regions)
        result[:, part] = values if by_region else getattr(values, least_certain)(0, keepdim=True)
    result = result.reshape(tensor.shape if by_region else tensor.shape[1:])
    return result.numpy() if isinstance(probs, np.ndarray) else result


def label_confidence(probs: np.ndarray, labels: np.ndarray, *, regions: bool = False) -> np.ndarray:
    """Probability of the label that each voxel has, whether it is the most probable one or not.

    Args:
        probs: (K, *spatial) class or (R, *spatial) region probabilities.
        labels: (*spatial) classes, or (R, *spatial) whether a voxel is in each region.
        regions: Whether these are sigmoid regions: p_r where it is in, 1 - p_r where not, the smallest of the voxel.

    Returns:
        (*spatial) of the type of the probabilities.
    """
    if regions:
        return np.where(labels, probs, 1 - probs).min(axis=0)
    return np.take_along_axis(probs, labels[None].astype(np.intp), axis=0)[0]


def mean_uncertainty(
    probs: np.ndarray, labels: np.ndarray, *, regions: bool = False, weights: np.ndarray | None = None
) -> dict[str, float]:
    """The means of normalised ``entropy`` and of the labels' ``confidence`` over some voxels.

    Args:
        probs: (K, n) class or (R, n) region probabilities.
        labels: What is delivered, see :func:`label_confidence`.
        regions: Whether these are sigmoid regions: the least certain one stands for a voxel.
        weights: (n,) of the voxels; None weighs all alike.

    Returns:
        Two numbers in [0, 1]; NaN without a voxel.
    """
    if not probs.size:
        return {"entropy": math.nan, "confidence": math.nan}
    own, entropy = label_confidence(probs, labels, regions=regions), normalised_entropy(probs, regions=regions)
    named = {"entropy": entropy, "confidence": own}
    return {name: float(np.average(of.astype(np.float64), weights=weights)) for name, of in named.items()}
