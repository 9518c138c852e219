"""Folders of predictions without ground truth, as for the quality of cases."""

from tests.quality.conftest import predict

__all__ = ["predict"]
