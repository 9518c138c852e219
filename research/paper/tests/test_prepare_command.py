"""`nnunet_nacl_paper prepare` as a user types it."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from miniatures import MINIATURES, save

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


def test_problems_are_one_line_each_and_the_exit_status_says_so(tmp_path, capsys) -> None:
    folder = MINIATURES["prostate"](tmp_path / "in")
    truth = folder / "Task05_Prostate" / "labelsTr" / "prostate_01.nii.gz"
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(truth)))
    save(np.where(array == 2, 3, array), truth, (3.6, 0.6, 0.6))
    assert prepare("prostate", folder, "-o", tmp_path, "--native", "-np", 1) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1] == f"  prostate_01: {truth}: holds label 3; PROSTATE (Decathlon Task05) has the labels 0, 1, 2."
    assert prepare("acdc", folder, "-o", tmp_path) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"nnunet_nacl_paper prepare: error: {folder}: holds no case of ACDC; expected files such as")
