"""What is wrong with a campaign file is found before anything runs, a line each; what is right is filled in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_nacl.campaign.campaign_file import read_campaign
from nnunet_nacl.campaign.grid import Grid
from nnunet_nacl.errors import UserError
from tests.campaign.files import TRAINERS, write_campaign_file

SHIPPED = Path(__file__).parents[2] / "campaigns"


def problems_of(tmp_path, **entries) -> list[str]:
    with pytest.raises(UserError) as raised:
        read_campaign(write_campaign_file(tmp_path, **entries))
    first, *lines = str(raised.value).splitlines()
    assert first.endswith(f"{len(lines)} to correct, nothing was run:")
    return [line.strip() for line in lines]


def test_configurations_and_folds_are_those_of_plans_and_split_that_are_there(tmp_path) -> None:
    folder = tmp_path / "preprocessed" / "Dataset004_Hippocampus"
    folder.mkdir()
    (folder / "nnUNetPlans.json").write_text('{"configurations": {"2d": {}, "3d_fullres": {}}}')
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 2))
    configuration, fold = problems_of(tmp_path, configurations=["3d_fulres"], folds=[1, 2])
    assert configuration.endswith("nnUNetPlans.json has no 3d_fulres; did you mean 3d_fullres?")
    assert fold.endswith("splits_final.json has 2 folds, from 0 on; there is no 2")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("splits_final.json", "5", "splits_final.json: the whole is int 5, not a list"),
        ("splits_final.json", "null", "the whole is NoneType, not a list"),
        ("splits_final.json", "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("splits_final.json", '[{"train": [], "val": ["../x"]}]', "'../x' cannot be the name of a case"),
        ("nnUNetPlans.json", '{"configurations": null}', "nnUNetPlans.json: configurations is NoneType"),
        ("nnUNetPlans.json", '{"configurations": {"3d_fullres": 5}}', "the configuration '3d_fullres' is int"),
    ],
)
def test_damaged_plans_and_splits_are_a_problem_each(tmp_path, name, text, words) -> None:
    (tmp_path / "preprocessed" / "Dataset004_Hippocampus").mkdir()
    (tmp_path / "preprocessed" / "Dataset004_Hippocampus" / name).write_text(text)
    (problem,) = problems_of(tmp_path)
    assert words in problem


def test_without_nnunets_folder_that_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("nnUNet_raw")
    assert problems_of(tmp_path) == ["datasets[0]: nnUNet_raw is not set, where data set 4 is looked for"]


@pytest.mark.parametrize(
    ("entries", "line"),
    [
        ({"trainer": ["x"]}, "unknown key 'trainer'; did you mean trainers?"),
        ({"configurations": None}, "the key 'configurations' is missing"),
        ({"folds": "0"}, "folds: '0' should be a valid list"),
        ({"cases": "tset"}, "cases: 'tset' should be 'validation' or 'test'"),
        (
            {"treatments": ["decided+calibrated"]},
            "treatments[0]: 'decided+calibrated' should be 'calibrated', 'decided' or ",
        ),
        ({"seeds": [0]}, "seeds[0]: 0 should be greater than or equal to 1"),
        ({"datasets": [{"dataset": 4, "fold": [0]}]}, "datasets[0]: unknown key 'fold'; did you mean folds?"),
        ({"datasets": [5]}, "datasets[0]: no data set 5 in nnUNet_raw; there are Dataset004_Hippocampus,"),
        (
            {"datasets": [4, "Dataset004_Hippocampus"]},
            "datasets: Dataset004_Hippocampus is there twice",
        ),
        ({"datasets": [{"decathlon": "$NOWHERE_/x"}]}, "datasets[0]: $NOWHERE_/x: no such folder"),
        ({"datasets": [{"dataset": 4, "decathlon": "x"}]}, "datasets[0]: give one of dataset, decathlon"),
        ({"trainers": ["nnUNetTrainerNCAL"]}, "did you mean nnUNetTrainerNACL?"),
        (
            {"trainers": ["nnUNetTrainerNACL_lamda0p2_100epoch"]},
            "trainers: trainer name 'nnUNetTrainerNACL_lamda0p2_100epoch': unknown token 'lamda0p2'; did you mean "
            "nnUNetTrainerNACL_lambda0p2_100epochs?",
        ),
        (
            {"trainers": ["nnUNetTrainerNoDA"], "seeds": [1], "datasets": [4]},
            "trainers: nnUNetTrainerNoDA is no trainer of this package, and knows no seed",
        ),
        (
            {"comparisons": {"a": ["nnUNetTrainer", "nnUNetTrainerNALC"]}},
            "did you mean nnUNetTrainer",
        ),
        ({"configurations": ["3d_cascade_fullres"]}, "configurations: 3d_cascade_fullres needs 3d_lowres before it"),
        ({"folds": [1.0]}, "folds[0]: '1.0' should be a valid integer"),
        ({"folds": [0, True]}, "folds[1]: True should be a valid integer"),
        ({"folds": [0, 0]}, "folds: 0 is there twice; give it once"),
        ({"threads": 10**400}, "threads: '1000000000"),
        ({"datasets": [1.5]}, "datasets[0]: no data set 1.5 in nnUNet_raw"),
        ({"datasets": [[4]]}, "datasets[0].dataset: [4] should be a valid string"),
        ({"datasets": []}, "datasets: List should have at least 1 item"),
        ({"comparisons": {"a": [TRAINERS[0]]}}, "comparisons.a: List should have at least 2 items"),
        ({"threads": 10**17}, "threads: 100000000000000000 should be less than or equal to 4096"),
        ({"comparisons": {"..": list(TRAINERS)}}, "comparisons...: '..' is no name; use letters, digits, '_', '-'"),
        ({"comparisons": {"a\n": list(TRAINERS)}}, "'a\\n' is no name; use letters, digits, '_', '-'"),
        ({"comparisons": {"-a": list(TRAINERS)}}, "'-a' is no name"),
        ({"configurations": ["2d\n"]}, "configurations[0]: '2d\\n' is no name"),
        ({"plans": "../plans"}, "plans: '../plans' is no name"),
        ({"after_planning": "python 'x"}, 'after_planning: "python \'x" is no command (No closing quotation)'),
        ({"datasets": ["Dataset077_x$(touch PWNED)"]}, "datasets[0]: 'Dataset077_x$(touch PWNED)' is no name"),
        ({"datasets": [78]}, "datasets[0]: 'Dataset078_two words' is no name"),
        ({"datasets": [{"decathlon": "Task77_x$(touch PWNED)"}]}, "received 'Task77_x$(touch PWNED)': rename it"),
    ],
)
def test_each_problem_is_one_line_with_the_value_and_the_nearest_right_one(
    tmp_path, monkeypatch, entries, line
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("raw/Dataset077_x$(touch PWNED)", "raw/Dataset078_two words", "Task77_x$(touch PWNED)"):
        (tmp_path / folder).mkdir()
    (found,) = problems_of(tmp_path, **entries)
    assert line in found


def test_all_problems_are_told_at_once(tmp_path) -> None:
    assert len(problems_of(tmp_path, trainers=["nnUNetTrainerNCAL", "nnUNetTrainerCE_adma"], datasets=[5])) == 3


def test_a_replicate_of_every_seed_has_its_own_name(tmp_path) -> None:
    campaign = read_campaign(write_campaign_file(tmp_path, seeds=[1, 3]))
    assert campaign["replicates"]["3"] == {
        "nnUNetTrainer": "nnUNetTrainerDiceCE_seed3",
        "nnUNetTrainerNACL": "nnUNetTrainerNACL_seed3",
    }
    assert [name for name, _, _ in Grid(campaign).comparisons()] == ["all_seed1", "all_seed3"]


def test_the_shipped_files_are_right(tmp_path, monkeypatch) -> None:
    if not SHIPPED.is_dir():
        pytest.skip("not run from the source tree")
    trainings = {}
    for path in SHIPPED.glob("*.yaml"):
        jobs = list(Grid(read_campaign(path)).jobs())
        assert len(jobs) == len(set(jobs))
        trainings[path.stem] = sum(job.startswith("train/") for job in jobs)
    assert trainings == {"clinic": 5 * 4}
