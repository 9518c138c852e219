"""Measures the cases of a model and compares models: `nnunet_nacl evaluate` and `compare`."""
