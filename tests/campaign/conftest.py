"""nnU-Net's folders with one data set."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("yaml", reason="needs nnunet_nacl[campaign]")


@pytest.fixture(autouse=True)
def nnunet_folders(tmp_path, monkeypatch) -> Path:
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    (tmp_path / "raw" / "Dataset004_Hippocampus").mkdir()
    return tmp_path
