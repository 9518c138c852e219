"""Calibrating segmentation losses for PyTorch, usable with or without nnU-Net.

Every row of the table of methods names a function, from a file of that name, and its module: both are attributes here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic

import torch
from torch import Tensor, nn
from typing_extensions import ParamSpec

from nnunet_nacl.losses.priors import neighborhood_proportions
from nnunet_nacl.methods import METHODS

__all__ = ["neighborhood_proportions"]
__all__ += [name for method in METHODS.values() for name in (method.function, method.module)]


_Settings = ParamSpec("_Settings")


class Loss(nn.Module, Generic[_Settings]):
    """A loss function with its settings: what the function takes after logits and target, with its defaults.

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

    def __init__(self, *args: _Settings.args, **settings: _Settings.kwargs) -> None:
        super().__init__()
        bound = inspect.signature(type(self)).bind(*args, **settings)
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


def _module_of(function: Callable[Concatenate[Tensor, Tensor, _Settings], Tensor], name: str) -> type[Loss[_Settings]]:
    """The module of a loss function, of this name, which is importable from here."""
    signature = inspect.Signature(list(inspect.signature(function).parameters.values())[2:])  # for help(), editors
    summary, _, more = (inspect.getdoc(function) or "").partition("\n")
    called = f"``{name}(...)(logits, target)`` is :func:`{__name__}.{function.__name__}` with these settings."
    attributes = {"function": staticmethod(function), "__signature__": signature}
    docstring = f"{summary}\n\n{called}\n{more.partition('Example:')[0]}"
    return type(name, (Loss,), {"__module__": __name__, "__doc__": docstring, **attributes})


for _method in METHODS.values():
    _function = getattr(import_module(f"{__name__}.{_method.function}"), _method.function)
    globals().update({_method.function: _function, _method.module: _module_of(_function, _method.module)})

if TYPE_CHECKING:  # what follows from the table, for type checkers; a new loss works without
    from nnunet_nacl.losses.ace import ace as ace
    from nnunet_nacl.losses.cross_entropy import cross_entropy as cross_entropy
    from nnunet_nacl.losses.ecp import ecp as ecp
    from nnunet_nacl.losses.focal import focal as focal
    from nnunet_nacl.losses.label_smoothing import label_smoothing as label_smoothing
    from nnunet_nacl.losses.mbls import mbls as mbls
    from nnunet_nacl.losses.nacl import nacl as nacl
    from nnunet_nacl.losses.svls import svls as svls

    ACELoss, CELoss, FocalLoss = _module_of(ace, ""), _module_of(cross_entropy, ""), _module_of(focal, "")
    ECPLoss, LabelSmoothingLoss = _module_of(ecp, ""), _module_of(label_smoothing, "")
    MbLSLoss, NACLLoss, SVLSLoss = _module_of(mbls, ""), _module_of(nacl, ""), _module_of(svls, "")
