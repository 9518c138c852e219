"""Reads the arrays that metrics are given: probabilities, labels and masks, checked, and block by
block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.label_space import LabelSpace, signed

SUM_TOLERANCE = 1e-2
"""Of the sum over classes: half-precision probabilities pass, logits and single channels do not."""

AnyArray = Tensor | np.ndarray

_BLOCK_PROBABILITIES = 1 << 18  # that are worked on together: they stay in the cache
_FEWEST_VOXELS = 1 << 10  # of a block


def check_not_masked(array: object, name: str, fix: str) -> None:
    """ValueError for a masked array of NumPy with masked voxels: what becomes of it here has no
    mask.

    Args:
        array: What was given.
        name: That of the argument, for the error.
        fix: What to do, as the error ends.
    """
    if np.ma.is_masked(array):
        raise ValueError(f"{name}: a masked array has masked voxels, which would count; {fix}.")


def read_tensor(array: AnyArray, name: str) -> Tensor:
    """The array as a tensor without gradient.

    The wider unsigned integers become signed ones, since torch computes with few of them
    (:func:`~nnunet_nacl.label_space.signed`).

    Args:
        array: What was given.
        name: That of the argument, for errors.

    Raises:
        ValueError: It is no array of numbers, or has masked voxels.
    """
    check_not_masked(array, name, "fill them, and leave them out by valid")
    try:
        return signed(torch.as_tensor(array).detach())
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} must be a tensor or a numeric array, got {type(array).__name__}: {error}"
        ) from None


def read_probs(probs: AnyArray, regions: bool) -> Tensor:
    """Probabilities as a tensor; ValueError unless they have the type and the channels of class or
    region ones."""
    tensor = read_tensor(probs, "probs")
    if not tensor.ndim or not tensor.is_floating_point():
        raise ValueError(
            f"probs must be floating point of shape (channels, *spatial), got {tensor.dtype}"
            f" {tuple(tensor.shape)}."
        )
    fewest_channels = 1 if regions else 2
    if len(tensor) < fewest_channels:
        raise ValueError(
            f"classes need at least two channels, background included, got {len(tensor)}; for"
            " sigmoid channels give regions=True, or their labels."
        )
    return tensor


def read_labels(
    labels: AnyArray,
    probs: Tensor,
    space: LabelSpace,
    valid: Tensor | None = None,
    *,
    name: str = "segmentation",
) -> tuple[Tensor, Tensor | None]:
    """Labels beside probabilities, and which of their voxels are valid.

    Args:
        labels: (*spatial) or (1, *spatial) class indices; of regions (R, *spatial) booleans or 0/1.
        probs: (K, *spatial) or (R, *spatial), as :func:`read_probs` gives them.
        space: What the labels mean.
        valid: (N,) booleans, False where labels may hold anything; None: everywhere they count.
        name: That of the argument, for errors.

    Returns:
        (N,) class indices or (R, N) booleans, 0 where not valid, on the device of ``probs``; and
        (N,) booleans of what is valid and not ignored, None where everything is.

    Raises:
        ValueError: The shape is another one, or a label is no class.
    """
    num_channels = len(probs)
    spatial = tuple(probs.shape[1:])
    read = read_tensor(labels, name).to(probs.device)
    if space.regions:
        possible_shapes = [tuple(probs.shape)]
        read_shape: tuple[int, ...] = (num_channels, -1)
    else:
        possible_shapes = [spatial, (1, *spatial)]
        read_shape = (-1,)
    if tuple(read.shape) not in possible_shapes:
        raise ValueError(
            f"{name} must have the shape of probs, {possible_shapes[0]}, got {tuple(read.shape)}."
        )
    read = read.reshape(read_shape)
    if valid is not None:
        read = torch.where(valid, read, 0)
    batch_of_probs = probs.reshape(1, num_channels, -1)
    target = space.read(batch_of_probs, read[None], names=("probs", name))
    checked_labels = target.labels[0]
    if space.regions:
        checked_labels = checked_labels.bool()
    if target.valid is None:
        return checked_labels, valid
    not_ignored = target.valid[0]
    return checked_labels, not_ignored if valid is None else valid & not_ignored


def read_mask(mask: AnyArray, name: str, probs: Tensor) -> Tensor:
    """A (*spatial) or (1, *spatial) mask beside probabilities as (N,) booleans; ValueError for
    another shape."""
    read = read_tensor(mask, name).to(probs.device)
    spatial = tuple(probs.shape[1:])
    if tuple(read.shape) not in (spatial, (1, *spatial)):
        raise ValueError(
            f"{name} must have the spatial shape of probs, {spatial}, got {tuple(read.shape)}."
        )
    return (read != 0).reshape(-1)


def check_probabilities(block: Tensor, regions: bool) -> None:
    """ValueError unless these (K, n) values are probabilities, and sum to 1 if they are
    classes'."""
    # amin reads a block where it lies, min would copy it first
    smallest = float(block.amin())
    # of classes the sum tells
    largest = float(block.amax()) if regions else 1.0
    if np.isnan(smallest) or np.isnan(largest):
        raise ValueError("the probabilities contain NaN")
    if smallest < 0 or largest > 1:
        value = smallest if smallest < 0 else largest
        raise ValueError(
            f"the probabilities are not all in [0, 1], for example {value:.6g}; are these logits?"
        )
    if not regions:
        _check_sums(block.sum(0))


def _check_sums(sums: Tensor) -> None:
    lowest = float(sums.amin())
    highest = float(sums.amax())
    if lowest >= 1 - SUM_TOLERANCE and highest <= 1 + SUM_TOLERANCE:
        return
    worst = lowest if 1 - lowest > highest - 1 else highest
    raise ValueError(f"the probabilities of a voxel sum to {worst:.6g} instead of 1")


def split_range(length: int, size: int) -> Iterator[slice]:
    """Slices that cut so many elements into blocks of ``size``, of which the last may be
    smaller."""
    for start in range(0, length, size):
        yield slice(start, start + size)


def split_blocks(probs: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """(C, *spatial) probabilities as (C, n) blocks of float32 or float64, each with the slice of
    the voxels that it holds."""
    dtype = torch.promote_types(probs.dtype, torch.float32)
    flat = probs.reshape(len(probs), -1)
    block_voxels = max(_FEWEST_VOXELS, _BLOCK_PROBABILITIES // len(flat))
    for part in split_range(flat.shape[1], block_voxels):
        yield part, flat[:, part].to(dtype)


def find_true(flags: Tensor) -> Tensor:
    """int64 indices of what is true in ``flags``, taken as one row; on the CPU by NumPy, in a tenth
    of the time."""
    if flags.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.flatten().nonzero().squeeze(1)


def find_most_probable(probs: Tensor, regions: bool) -> Tensor:
    """(n,) most probable class, the lower one of equals; or (R, n) whether the region is
    predicted."""
    if regions:
        return probs > 0.5
    return torch.max(probs, 0)[1]


def read_probabilities(probabilities: np.ndarray | Tensor, regions: bool) -> np.ndarray:
    """An array of probabilities; ValueError for what are no probabilities, such as logits."""
    array = read_array(probabilities, "probabilities")
    if array.ndim < 2 or array.dtype.kind != "f":
        raise ValueError(
            f"probabilities must be floating point, (K, *spatial), got {array.dtype} {array.shape}."
        )
    if not array.size:
        raise ValueError(
            f"probabilities must have voxels, got an empty array of shape {array.shape}."
        )
    try:
        check_probabilities(torch.from_numpy(np.ascontiguousarray(array)).flatten(1), regions)
    except ValueError as error:
        are_logits = float(array.min()) < 0 or float(array.max()) > 1.001
        hint = "these look like logits: apply softmax (regions: sigmoid) first. "
        raise ValueError(f"{hint if are_logits else ''}{error}") from None
    return array


def read_array(array: np.ndarray | Tensor, name: str) -> np.ndarray:
    """An array or tensor as a plain array; ValueError where voxels are masked, which no map knows
    of."""
    check_not_masked(array, name, "fill them, or leave it out")
    if isinstance(array, Tensor):
        array = array.detach().cpu()
    return np.asarray(array)
