"""What is found in the challenges' folders, and what is said when something is not as it should be."""

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
    ("name", "inner", "cases", "patients"),
    [
        ("acdc", "database/training", 10, 5),
        ("brats19", "MICCAI_BraTS_2019_Data_Training", 5, 4),  # one patient has two scans
        ("flare21", ".", 4, 4),
        ("prostate", "Task05_Prostate", 4, 4),
        ("kits19", "data", 4, 4),  # without the unlabelled test case
        ("mrbrains18", "training", 7, 7),
    ],
)
def test_the_outer_and_the_inner_folder_hold_the_same_cases(name, inner, cases, patients, tmp_path) -> None:
    found = find(name, MINIATURES[name](tmp_path / "data set"))
    assert len(found) == cases and len({case.patient for case in found}) == patients
    assert [case.name for case in find(name, tmp_path / "data set" / inner)] == [case.name for case in found]
    for case in found:
        assert len(case.images) == len(CHALLENGES[name].channels)
        assert all(path.is_file() for path in (*case.images, case.labels))


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
    with pytest.raises(InputError, match=r"no case of ACDC.*patient001/patient001_frame01\.nii\.gz.*database/training"):
        find("acdc", folder)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        find("acdc", folder / "nowhere")
