"""Calibrating segmentation losses for PyTorch, usable with or without nnU-Net."""

from nnunet_nacl.losses.analytic import automatic_differentiation
from nnunet_nacl.losses.functional import cross_entropy, ecp, focal, label_smoothing, mbls, nacl, svls
from nnunet_nacl.losses.modules import (
    CELoss,
    ECPLoss,
    FocalLoss,
    LabelSmoothingLoss,
    MbLSLoss,
    NACLLoss,
    SVLSLoss,
)
from nnunet_nacl.losses.priors import neighborhood_proportions, region_proportions

__all__ = [
    "CELoss",
    "ECPLoss",
    "FocalLoss",
    "LabelSmoothingLoss",
    "MbLSLoss",
    "NACLLoss",
    "SVLSLoss",
    "automatic_differentiation",
    "cross_entropy",
    "ecp",
    "focal",
    "label_smoothing",
    "mbls",
    "nacl",
    "neighborhood_proportions",
    "region_proportions",
    "svls",
]
