"""Calibration and segmentation metrics on arrays and tensors; nothing here knows nnU-Net or draws."""

from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.calibration_error import ace, brier, cece, class_errors, ece, mce, nll
from nnunet_nacl.numbers.counting import count_masks
from nnunet_nacl.numbers.overlap import Overlap, count_overlap, dice

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
