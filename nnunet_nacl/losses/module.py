"""The losses as modules: settings checked once and shown by ``repr``; the work is in the function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn


class Loss(nn.Module):
    """A loss function with its settings: what the function takes after logits and target, with the same defaults.

    Raises:
        ValueError: A setting is out of range.
        TypeError: The function has no setting of that name.

    Example:
        >>> import torch
        >>> from nnunet_nacl.losses import NACLLoss
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.randint(3, (2, 1, 16, 16))
        >>> loss = NACLLoss(penalty_weight=0.1)(logits, labels)
        >>> loss.backward()
    """

    function: ClassVar[Callable[..., Tensor]]

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


def module_of(function: Callable[..., Tensor], name: str, package: str) -> type[Loss]:
    """The module of a loss function, of this name, which is importable from that package."""
    settings = list(inspect.signature(function).parameters.values())[2:]
    attributes = {
        "function": staticmethod(function),
        "__signature__": inspect.Signature(settings),
    }  # for help(), editors
    docstring = f":func:`{package}.{function.__name__}` as a module; settings as there."
    return type(name, (Loss,), {"__module__": package, "__doc__": docstring, **attributes})
