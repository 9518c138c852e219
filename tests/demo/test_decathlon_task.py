"""Decathlon task folders are checked before nnU-Net reads them."""

from __future__ import annotations

import json

import pytest

from nnunet_nacl.demo.decathlon_task import read_task
from nnunet_nacl.errors import UserError


@pytest.fixture
def make_task(tmp_path):
    def make(name="Task09_Spleen", cases=5, without=(), **changes):
        folder = tmp_path / name
        for part in {"imagesTr", "labelsTr", "imagesTs"} - set(without):
            (folder / part).mkdir(parents=True)
        if "labelsTr" not in without:
            for i in range(cases):
                (folder / "labelsTr" / f"spleen_{i}.nii.gz").touch()
                (folder / "labelsTr" / f"._spleen_{i}.nii.gz").touch()
        description = {"labels": {"0": "background"}, "modality": {"0": "CT"}, "training": [], "test": [], **changes}
        (folder / "dataset.json").write_text(json.dumps({k: v for k, v in description.items() if v is not None}))
        return folder

    return make


def test_a_task_is_read(make_task):
    task = read_task(make_task())
    assert (task.id, task.dataset, task.probabilities) == (9, "Dataset009_Spleen", None)


def test_a_trailing_slash_and_a_link_are_fine(make_task, tmp_path):
    folder = make_task(name="spleen")
    (tmp_path / "Task12_Mine").symlink_to(folder)
    assert read_task(f"{tmp_path / 'Task12_Mine'}/").dataset == "Dataset012_Mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Spleen"}, "TaskNN_Name"),
        ({"name": "Task09_My_Spleen"}, "one underscore"),
        ({"without": ("imagesTs",)}, "imagesTs"),
        ({"without": ("labelsTr",)}, "labelsTr"),
        ({"modality": None}, "modality"),
        ({"training": None}, "training"),
        ({"labels": ["background"]}, "labels is list"),
        ({"cases": 4}, "4 cases"),
    ],
)
def test_what_nnunet_would_not_take_is_an_error_that_says_why(make_task, options, message):
    with pytest.raises(UserError, match=message):
        read_task(make_task(**options))


def test_a_missing_folder_and_a_broken_json_are_errors(make_task, tmp_path):
    with pytest.raises(UserError, match="Task01_None"):
        read_task(tmp_path / "Task01_None")
    folder = make_task()
    for content in ("{", "null"):
        (folder / "dataset.json").write_text(content)
        with pytest.raises(UserError, match="dataset.json"):
            read_task(folder)
