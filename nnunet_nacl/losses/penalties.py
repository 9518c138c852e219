"""Penalties P on the distance between a logit and its constraint (Murugesan et al. 2025, section 3.3 and table 4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["PENALTIES", "REDUCTIONS", "class_reduction", "l1", "l2", "penalty_function"]

REDUCTIONS = ("mean", "sum")


def l1(distance: Tensor) -> Tensor:
    """Absolute value: the same pull at any distance, so that the constraint is met exactly where it can be."""
    return distance.abs()


def l2(distance: Tensor) -> Tensor:
    """Square: a pull that fades near the constraint."""
    return distance * distance


PENALTIES: dict[str, Callable[[Tensor], Tensor]] = {"l1": l1, "l2": l2}


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
