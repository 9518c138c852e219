"""The segmentation with the highest expected Dice."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.metrics.expected_dice import blocks_of, count_expected, dice_of
from nnunet_nacl.metrics.inputs import AnyArray, read_probs


def decide_for_dice(probabilities: AnyArray, *, max_rounds: int = 20) -> np.ndarray:
    """The segmentation s with the largest sum over structures of the expected Dice E_k.

    E_k = 2 sum_{s = k} p_k / den_k with den_k = sum p_k + |s = k|
    (:mod:`~nnunet_nacl.metrics.expected_dice`). From the most probable labels on, each round gives
    every voxel the class with the largest (2 p_k - E_k) / den_k, 0 for the background, E_k and
    den_k being those of the round before: what the sum grows by, to first order. Such thresholds
    are RankSEG's (Dai and Li, JMLR 24, 2023; Nordström et al., 2023). The iteration can cycle, so
    it ends on a state that it has seen or after ``max_rounds``, and the best state counts: never
    worse than the most probable labels. A structure that these lack stays absent.

    Args:
        probabilities: (K, *spatial) of classes, background first; any floating type, any device.
        max_rounds: Most rounds; 0 gives the most probable labels, the lower class of equals.

    Returns:
        (*spatial) label map, uint8, or uint16 for more than 256 classes.

    Raises:
        ValueError: Probabilities are none, or ``max_rounds`` is negative.

    Examples:
        >>> probs = np.array([[0.6, 0.6, 0.1, 0.9], [0.4, 0.4, 0.9, 0.1]])
        >>> # E_1 of the most probable labels is 2 * 0.9 / (1.8 + 1) = 0.64, so 0.4 is enough:
        >>> decide_for_dice(probs)  # with an E_1 of 2 * 1.7 / (1.8 + 3) = 0.71
        array([1, 1, 1, 0], dtype=uint8)
    """
    if max_rounds < 0:
        raise ValueError(f"max_rounds must be at least 0, got {max_rounds!r}.")
    probs = read_probs(probabilities, False)
    slope = np.ones(len(probs))
    offset = np.zeros(len(probs))
    best_labels = np.empty(0)
    best_total = -1.0
    seen_states = set[bytes]()
    for _ in range(max_rounds + 1):
        labels = _choose_labels(probs, slope, offset)
        sums = count_expected(probs, labels)
        total = float(np.nansum(dice_of(sums)))
        if total > best_total:
            best_labels = labels
            best_total = total
        state = sums.tobytes()  # which decides about all further rounds
        if state in seen_states:
            break
        seen_states.add(state)
        slope, offset = _weigh_classes(sums)
    return best_labels


def _weigh_classes(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K,) slopes and offsets of the classes' gains, (2 p_k - E_k) / den_k = slope p_k + offset.

    Args:
        sums: (3, K - 1) of :func:`~nnunet_nacl.metrics.expected_dice.count_expected`.
    """
    expected_size, size, _ = sums
    is_present = size > 0
    denominator = np.where(is_present, expected_size + size, np.inf)
    offset = np.where(is_present, -dice_of(sums) / denominator, -np.inf)
    return np.append(0, 2 / denominator), np.append(0, offset)


def _choose_labels(probs: Tensor, slope: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """(*spatial) class with the largest slope p + offset."""
    dtype = np.uint8 if len(probs) <= 256 else np.uint16
    labels = np.empty(probs[0].numel(), dtype)
    for part, block in blocks_of(probs):
        block_slope = torch.as_tensor(slope).to(block)[:, None]
        block_offset = torch.as_tensor(offset).to(block)[:, None]
        gain = block * block_slope + block_offset
        labels[part] = gain.max(0)[1].cpu().numpy()
    return labels.reshape(probs.shape[1:])
