"""Calibration after training: fitted on held-out cases, written into checkpoints, applied to saved probabilities."""
