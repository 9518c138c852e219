"""Tests on a GPU: `python -m pytest -m gpu`. They are skipped where there is none.

NNUNET_NACL_GPU_TESTS_DEVICE=cpu runs them on the CPU instead, which shows that the tests themselves
work.
"""

from __future__ import annotations

import os

import pytest
import torch

from tests.integration.conftest import workspace  # noqa: F401  (a fixture)


@pytest.fixture(scope="session")
def device() -> torch.device:
    asked = torch.device(os.environ.get("NNUNET_NACL_GPU_TESTS_DEVICE", "cuda"))
    if asked.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU, and PyTorch finds none (torch.cuda.is_available() is False)")
    return asked
