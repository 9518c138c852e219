"""The losses as modules: settings checked once and shown by ``repr``; the work is in the function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

__all__ = ["Loss"]


class Loss(nn.Module):
    """A loss function with its settings.

    A subclass names the function; its constructor then takes what the function takes after logits and target, with the
    same defaults.

    Raises:
        ValueError: A setting is out of range.
        TypeError: The function has no setting of that name.
    """

    function: ClassVar[Callable[..., Tensor]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        settings = list(inspect.signature(cls.function).parameters.values())[2:]

        def __init__(self: Loss, **given: Any) -> None:
            Loss.__init__(self, **given)

        # What help() and editors show: the settings with their defaults instead of **given.
        itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        __init__.__signature__ = inspect.Signature([itself, *settings])  # type: ignore[attr-defined]
        __init__.__doc__ = f"Settings as those of :func:`{cls.function.__module__}.{cls.function.__name__}`."
        cls.__init__ = __init__  # type: ignore[method-assign]

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        bound = inspect.signature(type(self)).bind(**settings)
        bound.apply_defaults()
        self.settings: dict[str, Any] = dict(bound.arguments)
        self.check_labels: bool = self.settings.pop("check_labels")
        # One voxel is enough for the function to refuse bad settings now and not at the first batch.
        kernel_size = self.settings.get("kernel_size", 3)
        spatial = (1,) * (len(kernel_size) if isinstance(kernel_size, (tuple, list)) else 2)
        channels = 1 if self.settings["regions"] else 2
        type(self).function(torch.zeros(1, channels, *spatial), torch.zeros(1, 1, *spatial), **self.settings)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of one batch."""
        return type(self).function(logits, target, check_labels=self.check_labels, **self.settings)

    def extra_repr(self) -> str:
        """Settings, as nnU-Net writes them into debug.json."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
