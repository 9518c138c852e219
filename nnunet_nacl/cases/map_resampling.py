"""Whether a map commutes with the resampling of the plans, and by how much it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_nacl.calibration.affine import AffineMap, log_odds

__all__ = ["resampling_difference"]


def resampling_difference(
    plans: dict[str, Any],
    configuration: str,
    read: Callable[[], tuple[np.ndarray, Sequence[float]]],
    calibration: AffineMap,
) -> tuple[float, float] | None:
    """What cubic resampling of logits makes of the map: it clips each channel to its range, so they do not commute.

    The centred log probabilities of a case, brought to the network's grid, stand for its logits, which are known but
    for a constant; they are mapped before, or after, they are resampled to the image as the plans say.

    Args:
        plans: Content of plans.json.
        configuration: Name of the configuration.
        read: Gives probabilities (C, *spatial) of the case and its spacing in mm; only called where it matters.
        calibration: The map.

    Returns:
        Largest and mean difference of a probability; None where the map commutes: resampling is linear or nearest, or
        the structures are regions, each of which keeps to its own channel.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    if calibration.regions or configuration not in plans.get("configurations", {}):
        return None
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    asked = settings.configuration.get("resampling_fn_probabilities_kwargs", {})
    if max(asked.get("order") or 0, asked.get("order_z") or 0) <= 1 and "cubic" not in str(asked.get("mode")):
        return None
    probs, spacing = read()
    forward = list(manager.transpose_forward)
    odds = log_odds(probs.transpose([0, *(1 + axis for axis in forward)])).float()
    logits = torch.cat([torch.zeros_like(odds[:1]), odds])
    logits = logits - logits.mean(0)
    here, there = [float(spacing[axis]) for axis in forward], list(settings.spacing)
    there = [*here[: len(here) - len(there)], *there]  # 2D: slices stay apart as they are
    shape = logits.shape[1:]
    coarse = [max(1, round(n * a / b)) for n, a, b in zip(shape, here, there)]

    def resample(z: Tensor, *how: Sequence[float]) -> Tensor:
        return torch.as_tensor(settings.resampling_fn_probabilities(z.float().numpy(), *how))

    network_grid = resample(logits, coarse, here, there)
    first = resample(calibration.on_logits(network_grid), shape, there, here).softmax(0)
    second = calibration.on_logits(resample(network_grid, shape, there, here)).softmax(0)
    difference = (first - second).abs()
    return float(difference.max()), float(difference.mean())
