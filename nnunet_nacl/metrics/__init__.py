"""Calibration and segmentation metrics, fits and statistics on arrays; reads no files, and does not
need nnU-Net."""

from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.calibration_error import (
    ace,
    brier,
    cece,
    ece,
    marginal_ace,
    mce,
    nll,
    root_brier,
)
from nnunet_nacl.metrics.calibration_metric import CalibrationMetric
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.overlap import count_overlap

__all__ = ["BinStats", "CalibrationMetric", "count_masks", "count_overlap"]
__all__ += ["ace", "brier", "cece", "ece", "marginal_ace", "mce", "nll", "root_brier"]
