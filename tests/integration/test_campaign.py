"""A campaign from the first training to the page: one training fails, the others go on, the next run does the rest."""

from __future__ import annotations

import json

import pytest
import torch

from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace

# stems of their own: the probabilities and optimiser states of these models are removed
GOOD, BLOCKED = "nnUNetTrainerCE_1epochs_2iters_seed7", "nnUNetTrainerLS_1epochs_2iters_seed7"


def test_what_failed_is_done_by_the_next_run_and_nothing_else(workspace: Workspace, tmp_path) -> None:
    pytest.importorskip("snakemake", reason="needs nnunet_nacl[campaign], Python 3.11")
    trainers = ["nnUNetTrainerCE_1epochs_2iters", "nnUNetTrainerLS_1epochs_2iters"]
    content = {"datasets": [tiny.TASK_ID], "configurations": ["2d"], "folds": [0], "trainers": trainers, "seeds": [7]}
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(content | {"treatments": ["decided"], "device": "cpu"}))
    command = ("nnunet_nacl", "campaign", path, "-o", tmp_path / "out", "--cores", 2, "--keep", "documents")
    dataset = workspace.dataset_folder(workspace.raw, tiny.TASK_ID).name
    blocked = workspace.results / dataset / f"{BLOCKED}__nnUNetPlans__2d"
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("in the way")

    process = workspace.start(*command)
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 1
    assert f"failed: train/{dataset}/2d/{BLOCKED}/fold_0: this command ended with status 1: $ nnUNetv2_train" in output
    documents = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "done").rglob("*.json")}
    assert tmp_path / "out" / "done" / "evaluate" / dataset / "2d" / f"{GOOD}.json" in documents
    blocked.unlink()

    assert "trainings: 2 of 2 done" in workspace.run(*command)
    assert {file: file.stat().st_mtime_ns for file in documents} == documents
    comparison = tmp_path / "out" / "comparison" / "2d" / "all_seed7"
    assert (comparison / "report.html").is_file()
    assert {"figure_10_scatter.svg", "table_2_calibration.csv"} <= {
        file.name for file in (comparison / "paper").iterdir()
    }
    names = [entry["name"] for entry in json.loads((comparison / "comparison.json").read_text())["trainers"]]
    assert names == [GOOD, BLOCKED, f"{GOOD}+decided", f"{BLOCKED}+decided"]
    fold = workspace.results / dataset / f"{GOOD}__nnUNetPlans__2d" / "fold_0"
    assert not list(fold.rglob("*.npz")) and not (fold / "checkpoint_best.pth").exists()
    checkpoint = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    assert checkpoint["optimizer_state"]["state"] == {}
    # nnU-Net still takes it
    workspace.run_warm("nnUNetv2_train", tiny.TASK_ID, "2d", 0, "-tr", GOOD, "-device", "cpu", "--val")
