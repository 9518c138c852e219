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
    content = {
        "datasets": [dataset],
        "configurations": ["2d"],
        "folds": [0],
        "trainers": TRAINERS,
        "seeds": [7],
    }
    path, out = tmp_path / "small.yaml", tmp_path / "out"
    path.write_text(json.dumps(content | {"keep": "documents", "device": "cpu"}))
    command = [
        "snakemake",
        "--snakefile",
        SNAKEFILE,
        "--configfile",
        path,
        "--directory",
        out,
        "--cores",
        2,
    ]
    names = [f"{trainer}_seed7" for trainer in TRAINERS]
    folds = [workspace.results / dataset / f"{name}__nnUNetPlans__2d" / "fold_0" for name in names]

    process = workspace.start(*command)
    wait_for(lambda: all((fold / "checkpoint_best.pth").is_file() for fold in folds), process)
    kill(process)
    before = [training_log(fold) for fold in folds]
    assert not any("Training done" in log for log in before)
    workspace.run(*command, "--unlock")

    workspace.run(*command)
    for fold, log in zip(folds, before):
        first, *others = epochs_in(training_log(fold))
        assert 0 < first <= max(epochs_in(log)) + 1 and others[-1] == 29
        assert (
            not list(fold.glob("validation/*.npz")) and not (fold / "checkpoint_best.pth").exists()
        )
        assert (fold / "checkpoint_final.pth").is_file()
    comparison = out / "results" / "comparison" / "2d" / "all_seed7"
    assert (comparison / "report.html").is_file()
    entries = [
        entry["name"]
        for entry in json.loads((comparison / "comparison.json").read_text())["trainers"]
    ]
    assert entries == names
    assert "Nothing to be done" in workspace.run(*command)
