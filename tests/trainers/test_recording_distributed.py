"""Two ranks on half of the batches each log what one process logs on all, and never wait for a lost one."""

from __future__ import annotations

import json
import math
import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_nacl.show.calibration_progress import ECE_KEY, NLL_KEY
from nnunet_nacl_trainers import get_trainer, recording
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


def validate(trainer, batches: list[dict]) -> dict[str, float]:
    """The values that the trainer has logged of the batches."""
    recorder = trainer.calibration_recorder
    recorder.on_validation_epoch_start()
    with torch.no_grad():
        for batch in batches:
            trainer.loss(trainer.network(batch["data"]), batch["target"])
    recorder.on_validation_epoch_end()
    return {key: trainer.logger.get_value(key, 0) for key in (ECE_KEY, NLL_KEY)}


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = os.path.join(folder, name)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )  # a deadlock becomes an error
    try:
        values = validate(trainer_on_the_cpu(EQUAL), validation(rank))
        Path(folder, f"rank_{rank}.json").write_text(json.dumps(values))

        trainer = trainer_on_the_cpu(FAILING)
        sums_of = recording.sums_of

        def lost(*arguments):
            if rank == 1 and trainer.current_epoch == 1:
                raise RuntimeError("lost")
            return sums_of(*arguments)

        recording.sums_of = lost
        for _ in range(3):
            run_epoch(trainer, validation(rank), validation(rank))
        assert trainer.current_epoch == 3
        dist.barrier()  # a rank that leaves first would cut the other's connection
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two ranks have left their results."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
    mp.start_processes(one_rank, args=(str(folder),), nprocs=2, start_method="forkserver")
    return folder


def test_both_ranks_log_what_one_process_logs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(folder / name))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    expected = validate(trainer_on_the_cpu(EQUAL), validation(0) + validation(1))
    for rank in (0, 1):
        assert json.loads((folder / f"rank_{rank}.json").read_text()) == pytest.approx(expected, rel=1e-9)


def test_a_rank_that_fails_makes_no_other_wait(folder: Path) -> None:
    (fold,) = folder.glob(f"results/*/{FAILING}__*/fold_0")
    values = torch.load(fold / "checkpoint_latest.pth", weights_only=False)["logging"][ECE_KEY]
    assert [math.isnan(value) for value in values] == [False, True, False]
    log = "".join(path.read_text() for path in fold.glob("training_log_*.txt"))
    assert log.count("WARNING: calibration") == 1 and "RuntimeError: lost (rank 1)" in log
    assert log.count("Pseudo dice") == 3
