"""Measures the predictions in nnU-Net's folders."""
