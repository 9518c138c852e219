"""Calibrates a trained model: the recipe of `nnunet_nacl calibrate`, and the map as a file."""
