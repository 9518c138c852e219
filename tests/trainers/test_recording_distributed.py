"""Two ranks on half of the batches each record what one process records on all, and never wait for a lost one."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_nacl.training_record import read_training_record
from nnunet_nacl_trainers import get_trainer
from nnunet_nacl_trainers.observation import LogitObserver
from tests.trainers.epochs import make_batch, prepare, run_epoch
from tests.trainers.plans import dataset_json, make_plans

pytestmark = pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo")

EQUAL, FAILING = "nnUNetTrainerNACL_4epochs", "nnUNetTrainerCE_4epochs"


def trainer_on_the_cpu(name: str) -> nnUNetTrainer:
    """nnU-Net puts every rank on a GPU of its own; here there may be none."""
    trainer = get_trainer(name)(
        plans=make_plans(), configuration="2d", fold=0, dataset_json=dataset_json("ignore"), device=torch.device("cpu")
    )
    trainer.device, trainer.grad_scaler = torch.device("cpu"), None
    prepare(trainer)
    if trainer.is_ddp:
        trainer.network = torch.nn.parallel.DistributedDataParallel(trainer.network)
    trainer.calibration_recorder.on_train_start()
    return trainer


def validation(rank: int) -> list[dict]:
    return [make_batch("ignore", 2, seed, 3) for seed in (2 * rank, 2 * rank + 1)]


def validate(trainer, batches: list[dict]) -> None:
    recorder = trainer.calibration_recorder
    recorder.on_validation_epoch_start()
    with torch.no_grad():
        for batch in batches:
            trainer.loss(trainer.network(batch["data"]), batch["target"])
    recorder.on_validation_epoch_end()


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = os.path.join(folder, name)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )  # a deadlock becomes an error
    try:
        validate(trainer_on_the_cpu(EQUAL), validation(rank))

        trainer = trainer_on_the_cpu(FAILING)
        observe = LogitObserver.observe

        def lost(self, output, target):
            if rank == 1 and trainer.current_epoch == 1:
                raise RuntimeError("lost")
            observe(self, output, target)

        LogitObserver.observe = lost
        for _ in range(3):
            run_epoch(trainer, validation(rank), validation(rank))
        assert trainer.current_epoch == 3
        dist.barrier()  # a rank that leaves first would cut the other's connection
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two ranks have left their records."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
    mp.start_processes(one_rank, args=(str(folder),), nprocs=2, start_method="forkserver")
    return folder


def fold_of(folder: Path, name: str) -> Path:
    (fold,) = folder.glob(f"results/*/{name}__*/fold_0")
    return fold


def test_the_ranks_record_what_one_process_records(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = read_training_record(fold_of(folder, EQUAL))["epochs"]
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(folder / name))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    alone = trainer_on_the_cpu(EQUAL)
    validate(alone, validation(0) + validation(1))
    (expected,) = read_training_record(alone.output_folder)["epochs"]
    assert expected["calibration"]["all"]["n_voxels"] > 0
    approximate = ("mean_logits", "mean_logit_of_true_class", "epoch_start_timestamp", "bins")
    for key in set(expected) - set(approximate):
        assert found[key] == expected[key], key
    for mask, bins in expected["bins"].items():
        assert found["bins"][mask]["count"] == bins["count"] and found["bins"][mask]["correct"] == bins["correct"]
        assert found["bins"][mask]["confidence"][0] == pytest.approx(bins["confidence"][0], rel=1e-12)
    for row, expected_row in zip(found["mean_logits"], expected["mean_logits"], strict=True):
        assert row == pytest.approx(expected_row, rel=2e-5)


def test_a_rank_that_fails_makes_no_other_wait(folder: Path) -> None:
    fold = fold_of(folder, FAILING)
    assert [entry["epoch"] for entry in read_training_record(fold)["epochs"]] == [0]
    log = "".join(path.read_text() for path in fold.glob("training_log_*.txt"))
    assert log.count("WARNING: calibration") == 1 and "RuntimeError: lost (rank 1)" in log
    assert log.count("Pseudo dice") == 3
    assert os.path.isfile(fold / "checkpoint_latest.pth")
