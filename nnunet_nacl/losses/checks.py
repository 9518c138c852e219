"""Checks of the losses' settings."""

from __future__ import annotations

from collections.abc import Collection


def check_not_negative(name: str, value: float) -> None:
    """ValueError unless ``value`` is a finite number and not negative."""
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number, not negative; got {value!r}.")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """ValueError unless ``value`` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
