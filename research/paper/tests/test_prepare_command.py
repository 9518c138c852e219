"""`nnunet_nacl_paper prepare` as a user types it."""

from __future__ import annotations

import pytest
from miniatures import MINIATURES

from nnunet_nacl_paper.main import main


@pytest.fixture(autouse=True)
def no_nnunet_folders(monkeypatch) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(name, raising=False)


def prepare(*arguments) -> int:
    return main(["prepare", *map(str, arguments)])


def test_what_was_done_what_deviates_and_what_comes_next_are_said(tmp_path, capsys) -> None:
    folder = MINIATURES["kits19"](tmp_path / "in")
    assert prepare("kits19", folder, "-o", tmp_path, "-d", 801, "-np", 2) == 0
    printed = capsys.readouterr().out
    for line in (
        "training:      2 patients, 2 cases",
        "images:     turned to LPS, resampled to 3.22 x 1.62 x 1.62 mm, cropped to the central 80 x 160 x 160 voxels",
        "labelled voxels kept: 100.0% in the mean, least 100.0% (case_00000)",
        "note: 4 patients instead of 210: 2 / 1 / 1 in the proportion of 150 / 25 / 35",
        "note: the paper's split (150 / 25 / 40) adds up to 215 of 210 cases: 150 / 25 / 35 here",
        f"written: {tmp_path / 'Dataset801_KiTS19Paper'}",
        "$ nnUNetv2_plan_and_preprocess -d 801 -c 2d --verify_dataset_integrity",
    ):
        assert line in printed.splitlines()
