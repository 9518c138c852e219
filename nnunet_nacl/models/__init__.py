"""Calibrating a model, or a folder of predictions."""
