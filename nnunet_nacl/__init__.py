"""Calibrated confidence for nnU-Net v2: maps for trained models, calibrating losses and trainers,
calibration metrics.

The losses can be used without nnU-Net::

    from nnunet_nacl import NACLLoss

    loss = NACLLoss()(logits, target)

Trained models::

    import nnunet_nacl as nacl

    nacl.evaluate("predictions", "labels").table
    nacl.calibrate(model_folder).write()
    answer = nacl.Predictor(model_folder, bad=0.7).predict(image, properties)
    calibrated = nacl.CalibrationMap.load("calibration_map.json").transform(probabilities)

This module is imported whenever Python starts in an environment that has the package (see
`registration`), so it imports nothing: what it names is loaded, and PyTorch with it, when it is
first asked for.
"""

__version__ = "0.6.0"

TYPE_CHECKING = False  # typing itself takes longer to import than Python may take longer to start
if TYPE_CHECKING:
    from nnunet_nacl.calibration.calibrate import calibrate as calibrate
    from nnunet_nacl.calibration.calibration_map import CalibrationMap as CalibrationMap
    from nnunet_nacl.calibration.tune import tune as tune
    from nnunet_nacl.comparison.compare import compare as compare
    from nnunet_nacl.comparison.evaluate import evaluate as evaluate
    from nnunet_nacl.losses import ACELoss as ACELoss
    from nnunet_nacl.losses import CELoss as CELoss
    from nnunet_nacl.losses import ECPLoss as ECPLoss
    from nnunet_nacl.losses import FocalLoss as FocalLoss
    from nnunet_nacl.losses import LabelSmoothingLoss as LabelSmoothingLoss
    from nnunet_nacl.losses import MbLSLoss as MbLSLoss
    from nnunet_nacl.losses import NACLLoss as NACLLoss
    from nnunet_nacl.losses import SVLSLoss as SVLSLoss
    from nnunet_nacl.metrics.calibration_metric import CalibrationMetric as CalibrationMetric
    from nnunet_nacl.worklist.predict import predict as predict
    from nnunet_nacl.worklist.predictor import Predictor as Predictor
    from nnunet_nacl.worklist.review import read_back as read_back
    from nnunet_nacl.worklist.review import review as review

_MODULE_OF_NAME = {
    "ACELoss": "nnunet_nacl.losses",
    "CELoss": "nnunet_nacl.losses",
    "CalibrationMap": "nnunet_nacl.calibration.calibration_map",
    "CalibrationMetric": "nnunet_nacl.metrics.calibration_metric",
    "ECPLoss": "nnunet_nacl.losses",
    "FocalLoss": "nnunet_nacl.losses",
    "LabelSmoothingLoss": "nnunet_nacl.losses",
    "MbLSLoss": "nnunet_nacl.losses",
    "NACLLoss": "nnunet_nacl.losses",
    "Predictor": "nnunet_nacl.worklist.predictor",
    "SVLSLoss": "nnunet_nacl.losses",
    "calibrate": "nnunet_nacl.calibration.calibrate",
    "compare": "nnunet_nacl.comparison.compare",
    "evaluate": "nnunet_nacl.comparison.evaluate",
    "predict": "nnunet_nacl.worklist.predict",
    "read_back": "nnunet_nacl.worklist.review",
    "review": "nnunet_nacl.worklist.review",
    "tune": "nnunet_nacl.calibration.tune",
}
"""The public names; a new one also stands in the block for type checkers above."""

__all__ = [*_MODULE_OF_NAME, "__version__"]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF_NAME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_MODULE_OF_NAME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
