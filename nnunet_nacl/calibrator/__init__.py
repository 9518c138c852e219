"""Fits a calibration map to cases that the network was not trained on."""
