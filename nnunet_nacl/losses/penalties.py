"""Penalties P on the distance between a logit and its constraint (Murugesan et al. 2025, section 3.3 and table 4).

Each is 0 where the constraint is met.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["PENALTIES", "REDUCTIONS", "barrier", "barrier_slope", "class_reduction", "l1", "l2", "penalty_function"]

BARRIER_MARGIN = 2.0
BARRIER_T = 5.0

REDUCTIONS = ("mean", "sum")


def l1(distance: Tensor) -> Tensor:
    """Absolute value: the same pull at any distance, so that the constraint is met exactly where it can be."""
    return distance.abs()


def l2(distance: Tensor) -> Tensor:
    """Square: a pull that fades near the constraint."""
    return distance * distance


def barrier(distance: Tensor) -> Tensor:
    """Log-barrier: hardly a pull near the constraint, and a firm one from a margin b on.

    ``psi_t(|d| - b) - psi_t(-b)`` with the extended log-barrier (Kervadec et al. 2022, arXiv 1904.04205)
    ``psi_t(z) = -log(-z) / t`` for z <= -1 / t^2, else ``t z - log(1 / t^2) / t + 1 / t``, its tangent there. So
    ``P(d) = -log(1 - |d| / b) / t`` up to |d| = b - 1 / t^2, and beyond it grows with the slope t.

    b = 2: where all neighbours agree, logits may differ by 1 + 2 b = 5, which is MbLS's margin; between two classes of
    equal share by 4: unlike L1's, the limit follows tau. t = 5 is where Kervadec et al. begin; it stays there, since a
    trainer's loss follows from its name alone. The force beyond the margin is lambda t / K under ``mean``, 0.17 for
    lambda 0.1 and K = 3, where free logits come to rest within it, at p_y = 0.97; for K = 14 it is 0.04 and the margin
    gives way, up to p_y = 1 - lambda t / K.
    """
    size = distance.abs()
    inside = size.clamp(max=BARRIER_MARGIN - BARRIER_T**-2)
    return torch.log1p(inside / -BARRIER_MARGIN) / -BARRIER_T + BARRIER_T * (size - inside)


def barrier_slope(distance: Tensor) -> Tensor:
    """Derivative of :func:`barrier`; 0 at 0, where it has a kink."""
    return distance.sign() / (BARRIER_T * (BARRIER_MARGIN - distance.abs()).clamp(min=BARRIER_T**-2))


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"l1": l1, "l2": l2, "barrier": barrier}


def penalty_function(name: str) -> Callable[[Tensor], Tensor]:
    """Look a penalty up by name; ValueError lists the known ones."""
    if name not in PENALTIES:
        raise ValueError(f"penalty must be one of {', '.join(PENALTIES)}, got {name!r}.")
    return PENALTIES[name]


def class_reduction(name: str, num_channels: int, regions: bool) -> float:
    """Factor that turns a sum over the classes of one softmax, or over one region's in and out, into ``name``.

    Args:
        name: ``sum`` over the classes (the paper's formulas) or ``mean`` over them (the authors' code).
        num_channels: K. Not used for regions, each of which is a problem of two classes, in and out.
        regions: Whether the channels are regions.

    Returns:
        1 for ``sum``; 1 / K for the ``mean`` of K classes, 1 / 2 for that of a region.

    Raises:
        ValueError: ``name`` is neither.
    """
    if name not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {name!r}.")
    if name == "sum":
        return 1.0
    return 0.5 if regions else 1.0 / num_channels
