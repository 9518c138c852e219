"""From scans to segmentations and the list of those to look at first, by nnU-Net's networks and code."""

from nnunet_nacl.prediction.predictor import Answer, Predictor

__all__ = ["Answer", "Predictor"]
