"""Two trainings of the workflow, killed and continued, to the page of their comparison."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace, epochs_in, kill, training_log, wait_for

pytestmark = pytest.mark.slow
SNAKEFILE = Path(__file__).parents[2] / "workflow" / "Snakefile"
TRAINERS = ["nnUNetTrainerCE_30epochs_2iters", "nnUNetTrainerLS_30epochs_2iters"]


def test_killed_trainings_continue_and_what_is_finished_stays(
    workspace: Workspace, tmp_path
) -> None:
    pytest.importorskip("snakemake", reason="needs nnunet_nacl[workflow], Python 3.11")
    dataset = workspace.dataset_folder(workspace.raw, tiny.TASK_ID).name
    configuration = {
        "datasets": [dataset],
        "configurations": ["2d"],
        "folds": [0],
        "trainers": TRAINERS,
        "seeds": [7],
        "keep": "documents",
        "device": "cpu",
    }
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(configuration))
    output = tmp_path / "out"
    files = ["--snakefile", SNAKEFILE, "--configfile", path, "--directory", output]
    command = ["snakemake", *files, "--cores", 2]
    names = [f"{trainer}_seed7" for trainer in TRAINERS]
    folds = [workspace.results / dataset / f"{name}__nnUNetPlans__2d" / "fold_0" for name in names]

    process = workspace.start(*command)
    wait_for(lambda: all((fold / "checkpoint_best.pth").is_file() for fold in folds), process)
    kill(process)
    logs_before = [training_log(fold) for fold in folds]
    assert not any("Training done" in log for log in logs_before)
    workspace.run(*command, "--unlock")

    workspace.run(*command)
    for fold, log_before in zip(folds, logs_before):
        first, *others = epochs_in(training_log(fold))
        assert 0 < first <= max(epochs_in(log_before)) + 1
        assert others[-1] == 29
        assert (fold / "checkpoint_final.pth").is_file()
        assert not (fold / "checkpoint_best.pth").exists()
        assert not list(fold.glob("validation/*.npz"))
    comparison = output / "results" / "comparison" / "2d" / "all_seed7"
    assert (comparison / "report.html").is_file()
    trainers = tiny.read_json(comparison / "comparison.json")["trainers"]
    assert [trainer["name"] for trainer in trainers] == names
    assert "Nothing to be done" in workspace.run(*command)
