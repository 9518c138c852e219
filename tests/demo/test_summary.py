"""The demo's table, figure and sentences, from folders as nnU-Net writes them."""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK

from nnunet_nacl.demo.reading import read_table
from nnunet_nacl.demo.summary import Row, format_table, summarize
from nnunet_nacl.demo.task import Task
from nnunet_nacl.demo.training import Training
from nnunet_nacl.evaluation.evaluate import evaluate_folder
from tests.evaluation.folders import make_model

SCHEDULE = "_2epochs_3iters_adam"
SHARPNESS = {
    f"nnUNetTrainerDiceCE{SCHEDULE}": 6.0,
    f"nnUNetTrainerCE{SCHEDULE}": 3.0,
    f"nnUNetTrainerNACL{SCHEDULE}": 2.0,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three trainers with two folds of three cases, the ground truth and a task without true probabilities."""
    root = tmp_path_factory.mktemp("trained")
    trainings = []
    for trainer, sharpness in SHARPNESS.items():
        model = make_model(root / trainer, folds=2, sharpness=sharpness)
        model.folder.rename(model.folder.with_name(f"{trainer}__nnUNetPlans__2d_small"))
        trainings += [
            Training(root / trainer / "nnUNet_results", model.dataset, trainer, "2d_small", fold, 3, "cpu")
            for fold in ("0", "1")
        ]
    return trainings, model.references, Task(root, 999, model.dataset, 6, None)


@pytest.fixture
def rows(trained):
    trainings, references, _ = trained
    return {
        training.trainer: Row(
            training.trainer, training.trainer, evaluate_folder(training.validation_folder, references)
        )
        for training in trainings
        if training.fold == "0"
    }


def sentences(rows, **options):
    lines = read_table(rows, **{"num_folds": 1, "same_schedule": True, **options})
    return " ".join(line[2:] if line[:2] in ("- ", "  ") else line for line in lines)


def test_table_figure_and_text_are_written(trained, tmp_path):
    trainings, references, task = trained
    seen = []
    text = summarize(trainings, references, task, tmp_path / "summary", seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in (tmp_path / "summary").iterdir()) == [
        "reliability.png",
        "summary.txt",
        "table.csv",
    ]
    assert (tmp_path / "summary" / "summary.txt").read_text() == text + "\n"
    for part in (
        "folds 0, 1, 6 cases",
        "nnU-Net (Dice + CE)",
        "ECE foreground",
        str(tmp_path / "summary"),
        str(trainings[0].model_folder),
    ):
        assert part in text


def test_numbers_are_the_mean_over_the_cases_of_all_folds(trained, tmp_path):
    trainings, references, task = trained
    summarize(trainings, references, task, tmp_path)
    with open(tmp_path / "table.csv", newline="") as file:
        table = {row["trainer"]: row for row in csv.DictReader(file)}
    assert list(table) == list(SHARPNESS)
    mine = [training for training in trainings if training.trainer == trainings[0].trainer]
    cases = [case for training in mine for case in evaluate_folder(training.validation_folder, references).cases]
    row = table[trainings[0].trainer]
    assert row["cases"] == "6"
    assert float(row["ECE_foreground"]) == pytest.approx(np.mean([case.ece("foreground") for case in cases]), abs=1e-6)
    assert float(row["ECE_all"]) == pytest.approx(np.mean([case.ece("all") for case in cases]), abs=1e-6)
    dice = np.mean([np.mean([case.dice[key] for case in cases]) for key in ("1", "2")])
    assert float(row["DSC"]) == pytest.approx(dice, abs=1e-6)


def test_known_probabilities_become_a_row(trained, tmp_path):
    trainings, references, task = trained
    probabilities = tmp_path / "probabilitiesTr"
    probabilities.mkdir()
    for path in references.glob("*.nii.gz"):
        truth = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))
        certain = (np.arange(3).reshape(3, 1, 1, 1) == truth).astype(np.float32)
        np.savez_compressed(probabilities / path.name.replace(".nii.gz", ".npz"), probabilities=certain)
    one_fold = [training for training in trainings if training.fold == "0"]
    text = summarize(one_fold, references, replace(task, probabilities=probabilities), tmp_path)
    line = next(line for line in text.splitlines() if line.startswith("true probabilities"))
    assert line.split()[2:] == ["1.000", "0.000", "0.000"]
    assert "themselves have 0.000 there" in " ".join(text.split())
    with open(tmp_path / "table.csv", newline="") as file:
        assert list(csv.DictReader(file))[-1]["cases"] == "3"


def test_the_table_aligns(rows):
    lines = format_table(list(rows.values())).splitlines()
    assert len(lines) == 4
    assert len({line.index(".") for line in lines[1:]}) == 1


def test_each_step_is_credited_with_its_own_difference(rows):
    stock, ce, nacl = rows.values()
    text = sentences([stock, ce, nacl])
    change = ce.evaluation.mean_ece("foreground") - stock.evaluation.mean_ece("foreground")
    dice_change = ce.evaluation.mean_dice() - stock.evaluation.mean_dice()
    assert f"Leaving out the Dice term moves DSC by {dice_change:+.3f}" in text
    assert f"the foreground's ECE by {change:+.3f}" in text
    assert "Adding the penalty to CE moves DSC" in text
    assert "even a perfectly calibrated network" in text and "does not rank the methods" in text


def test_without_ce_both_changes_are_named_together(rows):
    stock, _, nacl = rows.values()
    assert "leaving out the Dice term as well as adding the penalty" in sentences([stock, nacl])


def test_other_trainers_are_not_interpreted(rows):
    stock = next(iter(rows.values()))
    other = Row("LS", f"nnUNetTrainerLS{SCHEDULE}", stock.evaluation)
    text = sentences([stock, other, Row("x", "nnUNetTrainer_5epochs", stock.evaluation)], same_schedule=False)
    assert "moves DSC" not in text and "differ in schedule or optimiser" in text


def test_lower_counts_cases_and_leaves_empty_ones_out(rows):
    stock, ce, _ = rows.values()
    text = sentences([stock, Row(ce.title, ce.trainer, stock.evaluation)])
    assert "lower in 0 of 3 cases" in text and not math.isnan(stock.evaluation.mean_ece("foreground"))


def test_problems_are_reported(rows):
    stock = next(iter(rows.values()))
    broken = replace(stock.evaluation, problems={"case_1": "case_1.npz is missing"})
    assert "Left out: case_1.npz is missing" in sentences([Row("x", stock.trainer, broken)])
