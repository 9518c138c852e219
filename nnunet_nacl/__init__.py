"""Networks whose confidence can be trusted: calibrating losses, trainers for nnU-Net v2, and calibration metrics.

The losses can be used without nnU-Net::

    from nnunet_nacl import NACLLoss

    loss = NACLLoss()(logits, target)

This module is imported whenever Python starts in an environment that has the package (see `registration`), so it
imports nothing: the losses, and PyTorch with them, are loaded when they are first asked for.
"""

__version__ = "0.2.0"

_LOSSES = ("CELoss", "ECPLoss", "FocalLoss", "LabelSmoothingLoss", "MbLSLoss", "NACLLoss", "SVLSLoss")

__all__ = [*_LOSSES, "__version__"]


def __getattr__(name):
    if name in _LOSSES:
        from nnunet_nacl import losses

        return getattr(losses, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
