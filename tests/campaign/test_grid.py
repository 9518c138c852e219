"""From a campaign to its jobs and what they wait for."""

from __future__ import annotations

from graphlib import TopologicalSorter

from nnunet_nacl.campaign.campaign_file import read_campaign
from nnunet_nacl.campaign.grid import STAGES, Grid
from tests.campaign.files import write_campaign_file

DATASET = "Dataset004_Hippocampus"


def grid_of(tmp_path, **entries) -> Grid:
    return Grid(read_campaign(write_campaign_file(tmp_path, **entries)))


def test_every_job_waits_for_jobs_of_the_campaign_alone(tmp_path) -> None:
    treatments = ["calibrated", "calibrated+decided"]
    cascade = ["2d", "3d_lowres", "3d_cascade_fullres"]
    for entries in ({}, {"treatments": treatments}, {"cases": "test", "seeds": [1, 2]}, {"configurations": cascade}):
        grid = grid_of(tmp_path, **entries)
        jobs = list(grid.jobs())
        needs = {job: grid.needs(job) for job in jobs}
        assert {needed for found in needs.values() for needed in found} <= set(jobs)
        order = list(TopologicalSorter(needs).static_order())
        assert set(order) == set(jobs)
        waited_for = {needed for found in needs.values() for needed in found} | set(grid.targets())
        assert waited_for == set(jobs)  # none is left out of the workflow
        assert [stage for stage in STAGES if any(job.startswith(f"{stage}/") for job in jobs)]


def test_what_a_campaign_runs(tmp_path) -> None:
    model = f"{DATASET}/2d/nnUNetTrainer"
    grid = grid_of(tmp_path, trainers=["nnUNetTrainer"], treatments=["calibrated"])
    assert list(grid.jobs()) == [
        f"preprocess/{DATASET}/2d",
        f"train/{model}/fold_0",
        f"train/{model}/fold_1",
        f"calibrate/{model}",
        f"evaluate/{model}",
        "compare/2d/all",
    ]
    assert grid.needs("compare/2d/all") == [f"evaluate/{model}"]


def test_a_cascade_is_trained_on_predictions_of_all_folds(tmp_path) -> None:
    grid = grid_of(tmp_path, configurations=["3d_lowres", "3d_cascade_fullres"])
    assert grid.needs(f"train/{DATASET}/3d_cascade_fullres/nnUNetTrainer/fold_1") == [
        f"preprocess/{DATASET}/3d_cascade_fullres",
        f"train/{DATASET}/3d_lowres/nnUNetTrainer/fold_0",
        f"train/{DATASET}/3d_lowres/nnUNetTrainer/fold_1",
    ]
