"""What all tests share: real data where there are some, and an environment that no nnU-Net setting leaks into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture(scope="session")
def decathlon_task() -> Path:
    """A task of the Medical Segmentation Decathlon, as published: dataset.json, imagesTr, labelsTr, imagesTs."""
    folder = os.environ.get("NNUNET_NACL_TEST_DATA")
    if not folder:
        pytest.skip("needs real data: set NNUNET_NACL_TEST_DATA to the folder of a Decathlon task")
    path = Path(folder)
    if not (path / "dataset.json").is_file():
        pytest.skip(f"NNUNET_NACL_TEST_DATA={folder} is not the folder of a Decathlon task: it has no dataset.json")
    return path


@pytest.fixture(scope="session")
def clean_environ() -> dict[str, str]:
    """The environment variables for another Python: those of this one without what configures Python or nnU-Net."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "nnUNet_", "VIRTUAL_ENV", "__PYVENV"))
    }
