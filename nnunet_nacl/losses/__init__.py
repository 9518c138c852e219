"""Calibrating segmentation losses for PyTorch, usable with or without nnU-Net.

Every row of the table of methods names a function, from a file of that name, and its module: both are attributes here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from nnunet_nacl.losses.module import Loss, module_of
from nnunet_nacl.losses.priors import neighborhood_proportions
from nnunet_nacl.methods import METHODS

if TYPE_CHECKING:  # what follows from the table, for type checkers; a new loss works without
    from nnunet_nacl.losses.cross_entropy import cross_entropy as cross_entropy
    from nnunet_nacl.losses.ecp import ecp as ecp
    from nnunet_nacl.losses.focal import focal as focal
    from nnunet_nacl.losses.label_smoothing import label_smoothing as label_smoothing
    from nnunet_nacl.losses.mbls import mbls as mbls
    from nnunet_nacl.losses.nacl import nacl as nacl
    from nnunet_nacl.losses.svls import svls as svls

    CELoss = ECPLoss = FocalLoss = LabelSmoothingLoss = MbLSLoss = NACLLoss = SVLSLoss = Loss

__all__ = ["neighborhood_proportions"]
__all__ += [name for method in METHODS.values() for name in (method.function, method.module)]


def _load() -> None:
    for method in METHODS.values():
        globals()[method.function] = getattr(import_module(f"{__name__}.{method.function}"), method.function)
        globals()[method.module] = module_of(globals()[method.function], method.module, __name__)


_load()
