"""What the stages run, and what they leave out since it is there.

Folds are there before the first training: two that begin together would meet while one writes them.
"""

from __future__ import annotations

import json
import zipfile

import pytest

from nnunet_nacl.campaign.stages import job_commands
from nnunet_nacl.errors import UserError
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


TRAINER = "nnUNetTrainerNACL_20epochs_30iters_adam"


@pytest.fixture
def campaign(tmp_path):
    entry = {"name": DATASET, "source": "decathlon", "folder": str(tmp_path / "Task04_Some"), "folds": [1]}
    roots = {f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")}
    fixed = {"plans": "nnUNetPlans", "cases": "validation", "keep": "all", "device": "cpu", "processes": 1}
    return {"datasets": [entry], "environment": roots, "treatments": ["calibrated"], **fixed}


@pytest.fixture
def fold(campaign, tmp_path):
    folder = tmp_path / "results" / DATASET / f"{TRAINER}__nnUNetPlans__2d_small" / "fold_1"
    folder.mkdir(parents=True)
    return folder


def shown(campaign, job) -> list[str]:
    return [command.shown() for command in job_commands(campaign, job)]


def train(campaign, trainer=TRAINER) -> str:
    (command,) = shown(campaign, f"train/{DATASET}/2d_small/{trainer}/fold_1") or [""]
    return command.removeprefix(f"nnUNetv2_train 4 2d_small 1 -tr {trainer} -p nnUNetPlans --npz -device cpu")


def checkpoint(fold, name, whole=True):
    path = fold / f"checkpoint_{name}.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "x" * 1000)
    if not whole:
        path.write_bytes(path.read_bytes()[:500])
    return path


def validation(fold, without_npz=()):
    folder = fold / "validation"
    folder.mkdir()
    for case in {"a", "b"} - set(without_npz):
        (folder / f"{case}.npz").touch()
    per_case = [{"prediction_file": f"/elsewhere/{case}.nii.gz", "reference_file": "", "metrics": {}} for case in "ab"]
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": per_case}))


def test_a_new_training_is_the_stock_command(campaign):
    job = f"train/{DATASET}/2d_small/{TRAINER}/fold_1"
    assert shown(campaign, job) == [
        f"nnUNetv2_train 4 2d_small 1 -tr {TRAINER} -p nnUNetPlans --npz -device cpu",
    ]


@pytest.mark.parametrize("name", ["latest", "best"])
def test_a_broken_off_training_is_continued(campaign, fold, name):
    checkpoint(fold, name)
    assert train(campaign) == " --c"


def test_a_checkpoint_cut_off_while_written_gives_way_to_the_one_before(campaign, fold):
    latest, best = checkpoint(fold, "latest", whole=False), checkpoint(fold, "best")
    assert train(campaign) == " --c"
    assert not latest.exists() and best.exists()
    best.write_bytes(b"")
    assert shown(campaign, f"train/{DATASET}/2d_small/{TRAINER}/fold_1")[0].endswith("-device cpu")


@pytest.mark.parametrize("broken", ["no validation", "no summary", "no npz", "bad summary", "null"])
def test_a_trained_network_without_all_predictions_is_validated(campaign, fold, broken):
    checkpoint(fold, "final")
    if broken != "no validation":
        validation(fold, without_npz=("b",) if broken == "no npz" else ())
    if broken == "no summary":
        (fold / "validation" / "summary.json").unlink()
    if broken == "bad summary":
        (fold / "validation" / "summary.json").write_text("{")
    if broken == "null":
        (fold / "validation" / "summary.json").write_text('{"metric_per_case": null}')
    assert train(campaign) == " --val"


def test_what_is_trained_validated_and_calibrated_is_left_out(campaign, fold):
    checkpoint(fold, "final")
    validation(fold)
    assert shown(campaign, f"train/{DATASET}/2d_small/{TRAINER}/fold_1") == []
    calibrate = f"calibrate/{DATASET}/2d_small/{TRAINER}"
    model = f"-d 4 -c 2d_small -f 1 -tr {TRAINER} -p nnUNetPlans"
    assert shown(campaign, calibrate) == [f"nnunet_nacl calibrate {model} -np 1"]
    checkpoint(fold, "calibrated")
    (fold.parent / "calibration_map.json").write_text('{"folds": ["1"]}')
    assert shown(campaign, calibrate) == []
    campaign["datasets"][0]["folds"] = [1, 2]
    assert len(shown(campaign, calibrate)) == 1


def test_a_conversion_that_was_broken_off_begins_again_and_another_task_is_refused(campaign, tmp_path):
    convert = [f"nnUNetv2_convert_MSD_dataset -i {tmp_path / 'Task04_Some'} -np 1"]
    target = tmp_path / "raw" / DATASET
    (target / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match="was not made here"):
        shown(campaign, f"prepare/{DATASET}")
    (target / "mine").rmdir()
    target.rmdir()
    for _ in range(2):
        assert shown(campaign, f"prepare/{DATASET}") == convert
        target.mkdir()
    (target / "dataset.json").touch()
    assert shown(campaign, f"prepare/{DATASET}") == []
    campaign["datasets"][0]["folder"] = str(tmp_path / "other" / "Task04_Some")
    with pytest.raises(UserError, match="was made from"):
        shown(campaign, f"prepare/{DATASET}")
