"""Folds are there before the first training: two that begin together would meet while one writes them."""

from __future__ import annotations

import json

import pytest

from nnunet_nacl.campaign.stages import job_commands
from tests.trainers.plans import make_plans

DATASET = "Dataset004_Some"


@pytest.fixture
def preprocess(tmp_path):
    """Does the stage for so many cases, plans being there; the split that it leaves, or None."""
    for name in ("raw", "preprocessed"):
        (tmp_path / name / DATASET).mkdir(parents=True)

    def perform(cases: int, **dataset: str):
        raw, folder = tmp_path / "raw" / DATASET, tmp_path / "preprocessed" / DATASET
        for part in ("imagesTr", "labelsTr"):
            (raw / part).mkdir()
        for i in range(cases):
            (raw / "imagesTr" / f"case_{i}_0000.nii.gz").touch()
            (raw / "labelsTr" / f"case_{i}.nii.gz").touch()
        (raw / "dataset.json").write_text(json.dumps({"file_ending": ".nii.gz", "numTraining": cases}))
        (folder / "nnUNetPlans.json").write_text(json.dumps(make_plans()))
        entry = {"name": DATASET, "source": "raw", **dataset}
        campaign = {"datasets": [entry], "plans": "nnUNetPlans", "processes": 1}
        campaign["environment"] = {f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed")}
        list(job_commands(campaign, f"preprocess/{DATASET}/2d"))
        splits = folder / "splits_final.json"
        return json.loads(splits.read_text()) if splits.exists() else None

    return perform


def test_nnunets_five_folds_hold_every_case_once(preprocess):
    splits = preprocess(7)
    names = [f"case_{i}" for i in range(7)]
    assert sorted(case for fold in splits for case in fold["val"]) == names
    assert all(sorted([*fold["train"], *fold["val"]]) == names for fold in splits) and len(splits) == 5


def test_folds_beside_a_task_are_taken(preprocess, tmp_path):
    mine = [{"train": ["case_0"], "val": ["case_1"]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(mine))
    assert preprocess(7, source="decathlon", folder=str(tmp_path)) == mine


def test_fewer_cases_than_folds_have_none(preprocess):
    assert preprocess(4) is None
