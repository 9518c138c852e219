"""From scans to segmentations and the list of those to look at first, by nnU-Net's networks and code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what reviews predictions that are there already needs no network
    from nnunet_nacl.prediction.predictor import Answer, PredictedStructure, Predictor, Probabilities

__all__ = ["Answer", "PredictedStructure", "Predictor", "Probabilities"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nnunet_nacl.prediction import predictor

    return getattr(predictor, name)
