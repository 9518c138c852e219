"""Whether arrays are what a calibration measurement needs, said in words when they are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.losses.label_space import LabelSpace, signed

SUM_TOLERANCE = 1e-2  # of the sum over classes: half-precision probabilities pass, logits and single channels do not


def read_inputs(
    probs: Tensor | np.ndarray,
    truth: Tensor | np.ndarray,
    masks: Mapping[str, Tensor | np.ndarray],
    valid: Tensor | np.ndarray | None,
    ignore_label: int | None,
    regions: bool,
) -> tuple[Tensor, Tensor, list[Tensor], Tensor | None]:
    """Check shapes, types and labels; see :func:`nnunet_nacl.numbers.counting.count_masks` for the arguments.

    Returns:
        On one device (K, N) or (R, N) probabilities, (N,) class indices or (R, N) booleans, (N,) booleans for each
        mask, and (N,) booleans of what is valid, or None.
    """
    probs, truth = _tensor(probs, "probs"), _tensor(truth, "truth")
    probs = read_probs(probs.cpu() if probs.device.type == "mps" else probs, regions)  # it lacks double precision
    spatial = tuple(probs.shape[1:])
    if ignore_label is not None and regions:
        raise ValueError("ignore_label has no meaning with regions=True: give the mask of known voxels as valid.")
    valid = None if valid is None else _mask(valid, "valid", spatial, probs.device)
    truth, shapes = truth.to(probs.device), [tuple(probs.shape)] if regions else [spatial, (1, *spatial)]
    if tuple(truth.shape) not in shapes:
        raise ValueError(f"truth must have the shape of probs, {shapes[0]}, got {tuple(truth.shape)}.")
    truth = truth.reshape(*[len(probs)] * regions, -1)
    if valid is not None:
        truth = torch.where(valid, truth, 0)  # where it is not it may hold anything
    probs = probs.reshape(len(probs), -1)
    target = LabelSpace(regions, ignore_label).read(probs[None], truth[None])
    if target.valid is not None:
        valid = target.valid[0] if valid is None else valid & target.valid[0]
    flat = [_mask(mask, f"mask {name!r}", spatial, probs.device) for name, mask in masks.items()]
    return probs, target.labels[0].bool() if regions else target.labels[0], flat, valid


def read_probs(probs: Tensor | np.ndarray, regions: bool, *, least_axes: int = 2) -> Tensor:
    """Probabilities as a tensor; ValueError unless they have the type and the channels of class or region ones."""
    tensor = _tensor(probs, "probs")
    if tensor.ndim < least_axes or not tensor.is_floating_point():
        raise ValueError(
            f"probs must be floating point of shape (channels, *spatial), got {tensor.dtype} {tuple(tensor.shape)}."
        )
    if tensor.shape[0] < (1 if regions else 2):
        raise ValueError(
            f"classes need at least two channels, background included, got {tensor.shape[0]}; for sigmoid channels "
            "give regions=True, or their labels."
        )
    return tensor


def check_chunk(chunk: Tensor, regions: bool) -> None:
    """ValueError unless these (K, n) values are probabilities, and sum to 1 if they are classes'."""
    # amin reads a chunk where it lies, min would copy it first
    smallest, largest = float(chunk.amin()), float(chunk.amax()) if regions else 1.0
    if not (smallest >= 0 and largest <= 1):  # not (...): NaN fails every comparison
        if np.isnan(smallest) or np.isnan(largest):
            raise ValueError("the probabilities contain NaN")
        value = smallest if smallest < 0 else largest
        raise ValueError(f"the probabilities are not all in [0, 1], for example {value:.6g}; are these logits?")
    if regions:
        return
    total = chunk.sum(0)
    low, high = float(total.amin()), float(total.amax())
    if not (low >= 1 - SUM_TOLERANCE and high <= 1 + SUM_TOLERANCE):
        worst = low if 1 - low > high - 1 else high
        raise ValueError(f"the probabilities of a voxel sum to {worst:.6g} instead of 1")


def _tensor(array: Tensor | np.ndarray, name: str) -> Tensor:
    try:
        return signed(torch.as_tensor(array).detach())
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a tensor or a numeric array, got {type(array).__name__}: {error}") from None


def _mask(mask: Tensor | np.ndarray, name: str, spatial: tuple[int, ...], device: torch.device) -> Tensor:
    mask = _tensor(mask, name).to(device)
    if tuple(mask.shape) not in (spatial, (1, *spatial)):
        raise ValueError(f"{name} must have the spatial shape of probs, {spatial}, got {tuple(mask.shape)}.")
    return (mask if mask.dtype == torch.bool else mask != 0).reshape(-1)


def parts(length: int, size: int) -> Iterator[slice]:
    """Slices that cut so many elements into blocks."""
    return (slice(start, start + size) for start in range(0, length, size))


def where_true(flags: Tensor) -> Tensor:
    """int64 indices of what is true in ``flags``, taken as one row; on the CPU by NumPy, in a tenth of the time."""
    if flags.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(flags.numpy()))
    return flags.flatten().nonzero().squeeze(1)
