"""Calibrated confidence for nnU-Net v2: maps for trained models, calibrating losses and trainers, calibration metrics.

The losses can be used without nnU-Net::

    from nnunet_nacl import NACLLoss

    loss = NACLLoss()(logits, target)

This module is imported whenever Python starts in an environment that has the package (see `registration`), so it
imports nothing: the losses, and PyTorch with them, are loaded when they are first asked for.
"""

__version__ = "0.4.0"

TYPE_CHECKING = False  # typing itself takes longer to import than Python may take longer to start
if TYPE_CHECKING:
    from nnunet_nacl.losses import CELoss as CELoss
    from nnunet_nacl.losses import ECPLoss as ECPLoss
    from nnunet_nacl.losses import FocalLoss as FocalLoss
    from nnunet_nacl.losses import LabelSmoothingLoss as LabelSmoothingLoss
    from nnunet_nacl.losses import MbLSLoss as MbLSLoss
    from nnunet_nacl.losses import NACLLoss as NACLLoss
    from nnunet_nacl.losses import SVLSLoss as SVLSLoss


def __getattr__(name):
    if name == "__all__" or name.endswith("Loss"):
        from nnunet_nacl.methods import METHODS

        modules = [method.module for method in METHODS.values()]
        if name == "__all__":
            return [*modules, "__version__"]
        if name in modules:
            from nnunet_nacl import losses

            return getattr(losses, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__getattr__("__all__")})
