"""Calibration and segmentation metrics on arrays and tensors; nothing here knows nnU-Net or draws."""

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import ace, brier, cece, class_errors, ece, mce, nll
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.overlap import Overlap, count_overlap, dice

__all__ = [
    "BinStats",
    "Overlap",
    "ace",
    "brier",
    "cece",
    "class_errors",
    "count_masks",
    "count_overlap",
    "dice",
    "ece",
    "mce",
    "nll",
]
