"""Two ranks: they start alike, step as one process on both parts does, log what it logs, and wait
for no lost one."""

from __future__ import annotations

import json
import math
import os
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

from nnunet_nacl_trainers import calibration_log
from nnunet_nacl_trainers.calibration_log import ECE_KEY, NLL_KEY
from nnunet_nacl_trainers.frequency_start import FrequencyStart
from tests.trainers.epochs import (
    construct,
    make_batch,
    prepare,
    run_epoch,
    start,
    write_segmentations,
)
from tests.trainers.plans import DATASET

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)

EQUAL = "nnUNetTrainerNACL_4epochs"
FAILING = "nnUNetTrainerCE_4epochs"
STARTED = "nnUNetTrainerNACL_8epochs"
STEPPED = ("nnUNetTrainerNACL", "nnUNetTrainerDiceNACL")


def trainer_on_the_cpu(
    name: str, label_space: str = "ignore", prepared: bool = True
) -> module.nnUNetTrainer:
    trainer = construct(name, label_space)
    trainer.device = torch.device("cpu")
    trainer.grad_scaler = None
    if prepared:
        prepare(trainer)
        if trainer.is_ddp:
            trainer.network = torch.nn.parallel.DistributedDataParallel(trainer.network)
    return trainer


def batches(rank: int, label_space: str = "ignore") -> list[dict]:
    return [make_batch(label_space, 2, seed, 3) for seed in (2 * rank, 2 * rank + 1)]


def validate(trainer, batches: list[dict]) -> dict[str, float]:
    """The values that the trainer has logged of the batches."""
    calibration_log = trainer.calibration_log
    calibration_log.on_validation_epoch_start()
    with torch.no_grad():
        for batch in batches:
            trainer.loss(trainer.network(batch["data"]), batch["target"])
    calibration_log.on_validation_epoch_end()
    return {key: trainer.logger.get_value(key, 0) for key in (ECE_KEY, NLL_KEY)}


def gradient(trainer, *ranks: int) -> torch.Tensor:
    """Of the network's weights, by all batches of these ranks at once."""
    images = []
    targets = []
    for rank in ranks:
        for batch in batches(rank, "classes"):
            images.append(batch["data"])
            targets.append(batch["target"])
    target = [torch.cat(scale) for scale in zip(*targets)]
    trainer.loss(trainer.network(torch.cat(images)), target).backward()
    return trainer.bare_network().layer.weight.grad


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = os.path.join(folder, name)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )  # a deadlock becomes an error
    try:
        values = validate(trainer_on_the_cpu(EQUAL), batches(rank))
        Path(folder, f"rank_{rank}.json").write_text(json.dumps(values))
        np.savez(
            f"{folder}/step_{rank}.npz",
            *(gradient(trainer_on_the_cpu(name, "classes"), rank) for name in STEPPED),
        )

        trainer = trainer_on_the_cpu(FAILING)
        count_batch = calibration_log.count_batch

        def lost(*arguments):
            if rank == 1 and trainer.current_epoch == 1:
                raise RuntimeError("lost")
            return count_batch(*arguments)

        calibration_log.count_batch = lost
        if rank > 0:
            calibration_log.draw_progress = None  # calling it would be a warning
        with open(f"{folder}/output_{rank}.txt", "w") as output, redirect_stdout(output):
            for _ in range(3):
                run_epoch(trainer, batches(rank), batches(rank))
        assert trainer.current_epoch == 3

        parallel = module.DDP
        module.DDP = lambda network, device_ids: parallel(network)
        if rank > 0:
            FrequencyStart._count = None
        trainer = trainer_on_the_cpu(STARTED, prepared=False)
        torch.manual_seed(rank)
        start(trainer)
        np.savez(f"{folder}/start_{rank}.npz", **trainer.network.module.state_dict())
        dist.barrier()  # a rank that leaves first would cut the other's connection
        del trainer.network  # before the process group
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two ranks have left their results."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir()
    (folder / "preprocessed" / DATASET / "nnUNetPlans_2d").mkdir(parents=True)
    np.save(folder / "voxels.npy", write_segmentations(folder, "ignore"))
    mp.start_processes(one_rank, args=(str(folder),), nprocs=2, start_method="forkserver")
    return folder


@pytest.fixture
def alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's folders for a trainer of this process."""
    for name in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{name}", str(folder / name))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))


def test_both_ranks_log_what_one_process_logs(folder: Path, alone: None) -> None:
    expected = validate(trainer_on_the_cpu(EQUAL), batches(0) + batches(1))
    for rank in (0, 1):
        assert json.loads((folder / f"rank_{rank}.json").read_text()) == pytest.approx(
            expected, rel=1e-9
        )


def test_their_gradients_are_those_of_the_joined_batch(folder: Path, alone: None) -> None:
    for number, name in enumerate(STEPPED):
        joined, half = (
            gradient(trainer_on_the_cpu(name, "classes"), *ranks).numpy()
            for ranks in ((0, 1), (0,))
        )
        for rank in (0, 1):
            found = np.load(folder / f"step_{rank}.npz")[f"arr_{number}"]
            np.testing.assert_allclose(found, joined, rtol=1e-4, atol=1e-6)
        assert not np.allclose(half, joined, rtol=1e-2)


def test_a_rank_that_fails_makes_no_other_wait(folder: Path) -> None:
    (fold,) = folder.glob(f"results/*/{FAILING}__*/fold_0")
    values = torch.load(fold / "checkpoint_latest.pth", weights_only=False)["logging"][ECE_KEY]
    assert [math.isnan(value) for value in values] == [False, True, False]
    log = "".join(path.read_text() for path in fold.glob("training_log_*.txt"))
    assert "WARNING" not in log and log.count("Pseudo dice") == 3
    warnings_of_second = (folder / "output_1.txt").read_text().split("WARNING: ")[1:]
    assert len(warnings_of_second) == 1
    assert warnings_of_second[0].startswith(
        "calibration in a training, which goes on: RuntimeError: lost"
    )
    assert (fold / calibration_log.PROGRESS_FIGURE).is_file()


def test_the_first_rank_counts_the_classes_for_both(folder: Path) -> None:
    first, second = (np.load(folder / f"start_{rank}.npz") for rank in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    counts = np.bincount(np.maximum(np.load(folder / "voxels.npy"), 0))[:3]
    np.testing.assert_allclose(
        first["decoder.seg_layers.2.bias"], np.log(counts / counts.max()), rtol=1e-6
    )
