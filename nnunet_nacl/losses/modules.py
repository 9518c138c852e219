"""The losses as modules: settings checked once and shown by ``repr``; the work is in ``functional``.

Every ``forward(logits, target)`` takes and returns what the function it names does; see there for the settings'
meaning, for shapes, ignored voxels and regions. Common settings are ``ignore_label`` (default None), ``regions``
(False) and ``check_labels`` (True; it waits for the device, so loops on a GPU may set it to False after one batch).
Settings out of range raise ValueError when the module is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunet_nacl.losses import functional

__all__ = ["CELoss", "ECPLoss", "FocalLoss", "LabelSmoothingLoss", "MbLSLoss", "NACLLoss", "SVLSLoss"]


class _Loss(nn.Module):
    function: ClassVar[Callable[..., Tensor]]

    def __init__(
        self, *, ignore_label: int | None = None, regions: bool = False, check_labels: bool = True, **settings: Any
    ) -> None:
        super().__init__()
        self.settings = {**settings, "ignore_label": ignore_label, "regions": regions}
        self.check_labels = check_labels
        # One voxel is enough for the function to refuse bad settings now and not at the first batch.
        kernel_size = settings.get("kernel_size", 3)
        spatial = (1,) * (len(kernel_size) if isinstance(kernel_size, (tuple, list)) else 2)
        channels = 1 if regions else 2
        type(self).function(torch.zeros(1, channels, *spatial), torch.zeros(1, 1, *spatial), **self.settings)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of one batch."""
        return type(self).function(logits, target, check_labels=self.check_labels, **self.settings)

    def extra_repr(self) -> str:
        """Settings, as nnU-Net writes them into debug.json."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


class CELoss(_Loss):
    """:func:`~nnunet_nacl.losses.functional.cross_entropy`: plain cross-entropy."""

    function = staticmethod(functional.cross_entropy)

    def __init__(self, **common: Any) -> None:
        super().__init__(**common)


class LabelSmoothingLoss(_Loss):
    """:func:`~nnunet_nacl.losses.functional.label_smoothing`, alpha = ``smoothing``."""

    function = staticmethod(functional.label_smoothing)

    def __init__(self, *, smoothing: float = 0.1, **common: Any) -> None:
        super().__init__(smoothing=smoothing, **common)


class FocalLoss(_Loss):
    """:func:`~nnunet_nacl.losses.functional.focal`."""

    function = staticmethod(functional.focal)

    def __init__(self, *, gamma: float = 3.0, **common: Any) -> None:
        super().__init__(gamma=gamma, **common)


class ECPLoss(_Loss):
    """:func:`~nnunet_nacl.losses.functional.ecp`: cross-entropy less weighted entropy."""

    function = staticmethod(functional.ecp)

    def __init__(self, *, penalty_weight: float = 0.1, reduction: str = "mean", **common: Any) -> None:
        super().__init__(penalty_weight=penalty_weight, reduction=reduction, **common)


class MbLSLoss(_Loss):
    """:func:`~nnunet_nacl.losses.functional.mbls`: margin-based label smoothing."""

    function = staticmethod(functional.mbls)

    def __init__(
        self, *, penalty_weight: float = 0.1, margin: float = 5.0, reduction: str = "mean", **common: Any
    ) -> None:
        super().__init__(penalty_weight=penalty_weight, margin=margin, reduction=reduction, **common)


class SVLSLoss(_Loss):
    """:func:`~nnunet_nacl.losses.functional.svls`: spatially varying label smoothing."""

    function = staticmethod(functional.svls)

    def __init__(
        self, *, sigma: float = 2.0, kernel_size: int | tuple[int, ...] = 3, padding: str = "replicate", **common: Any
    ) -> None:
        super().__init__(sigma=sigma, kernel_size=kernel_size, padding=padding, **common)


class NACLLoss(_Loss):
    """:func:`~nnunet_nacl.losses.functional.nacl`: neighbour-aware calibration.

    Example:
        >>> import torch
        >>> from nnunet_nacl.losses import NACLLoss
        >>> logits = torch.zeros(2, 3, 16, 16, requires_grad=True)
        >>> labels = torch.randint(3, (2, 1, 16, 16))
        >>> loss = NACLLoss(penalty_weight=0.1)(logits, labels)
        >>> loss.backward()
    """

    function = staticmethod(functional.nacl)

    def __init__(
        self,
        *,
        penalty_weight: float = 0.1,
        kernel_size: int | tuple[int, ...] = 3,
        prior: str = "mean",
        sigma: float = 1.0,
        penalty: str = "l1",
        space: str = "logits",
        reduction: str = "mean",
        padding: str = "valid",
        prior_scale: float = 1.0,
        **common: Any,
    ) -> None:
        super().__init__(
            penalty_weight=penalty_weight,
            kernel_size=kernel_size,
            prior=prior,
            sigma=sigma,
            penalty=penalty,
            space=space,
            reduction=reduction,
            padding=padding,
            prior_scale=prior_scale,
            **common,
        )
