"""What is found in the challenges' folders, and errors where something is missing."""

from __future__ import annotations

import pytest
from miniatures import MINIATURES

from nnunet_nacl_paper.datasets.challenges import CHALLENGES
from nnunet_nacl_paper.datasets.layouts import find_cases
from nnunet_nacl_paper.files import InputError


def find(name, folder):
    challenge = CHALLENGES[name]
    return find_cases(folder, challenge.title, challenge.layouts, challenge.case)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("acdc", "database/training/patient002/patient002_frame01_gt.nii.gz"),
        ("prostate", "Task05_Prostate/labelsTr/prostate_02.nii.gz"),
    ],
)
def test_a_missing_file_is_named(name, gone, tmp_path) -> None:
    folder = MINIATURES[name](tmp_path)
    (folder / gone).unlink()
    with pytest.raises(InputError, match="missing; a case of") as error:
        find(name, folder)
    assert str(error.value).startswith(str(folder / gone)) and "\n" not in str(error.value)


def test_another_challenges_folder_is_refused_with_what_was_expected(tmp_path) -> None:
    folder = MINIATURES["flare21"](tmp_path)
    with pytest.raises(
        InputError,
        match=r"no case of ACDC.*patient001/patient001_frame01\.nii\.gz.*database/training",
    ):
        find("acdc", folder)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find("acdc", folder / "nowhere")
