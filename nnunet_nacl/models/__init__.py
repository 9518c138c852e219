"""Trained models that travel: an archive with the calibration and a model card, also for sites without this package."""
