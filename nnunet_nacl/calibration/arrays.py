"""Reads the arrays that a calibration map is fitted to and applied to."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.inputs import check_not_masked, check_probabilities


def read_probabilities(probabilities: np.ndarray | Tensor, regions: bool) -> np.ndarray:
    """An array of probabilities; ValueError for what is none, such as logits."""
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
