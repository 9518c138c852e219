"""Two ranks that validate with nnU-Net's own worker processes leave one document of all cases."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from nnunet_nacl.cases.record import read_record
from tests.processes import FORGET, spawn_warm
from tests.trainers.conftest import make_folders
from tests.trainers.validation import CASES, make_validator, write_cases

pytestmark = [
    pytest.mark.skipif(
        not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
    ),
    pytest.mark.slow,  # six processes
]


def one_rank(rank: int, folder: str) -> None:
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    spawn_warm()
    module.default_num_processes = 1
    parallel = module.DDP
    # nnU-Net puts every rank on a GPU of its own
    module.DDP = lambda network, device_ids: parallel(network)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=300),
    )
    try:
        make_validator("classes").perform_actual_validation(False)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def test_two_ranks_leave_one_document(
    tmp_path: Path, warm_nnunet, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folders(tmp_path, monkeypatch)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(FORGET, "1")  # the ranks read the folders
    write_cases(tmp_path, "classes")
    mp.start_processes(one_rank, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    (fold,) = tmp_path.glob("results/*/*/fold_0")
    log = "".join(path.read_text() for path in fold.glob("training_log_*.txt"))
    assert "WARNING" not in log and log.count("Calibration (mean over 5 cases)") == 1
    folder = fold / "validation"
    summary = json.loads((folder / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(CASES)
    for case in summary["metric_per_case"]:
        name = os.path.basename(case["prediction_file"]).removesuffix(".nii.gz")
        voxels = read_record(folder / "records" / f"{name}.npz").structures["TP"]
        assert {key: values["TP"] for key, values in case["metrics"].items()} == voxels.to_dict()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{case}.nii.gz" for case in CASES), "calibration.json", "records", "summary.json"]
    )
