"""With two ranks the first one counts, and both networks start at the same biases."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from nnunet_nacl_trainers import get_trainer
from nnunet_nacl_trainers.frequency_start import FrequencyStart
from tests.trainers.plans import DATASET, dataset_json, make_plans
from tests.trainers.segmentations import start, write_segmentations

pytestmark = pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo")


def one_rank(rank: int, folder: str) -> None:
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    torch.set_num_threads(1)
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = os.path.join(folder, name)
    parallel = module.DDP
    module.DDP = lambda network, device_ids: parallel(network)  # nnU-Net puts every rank on a GPU of its own
    if rank > 0:
        FrequencyStart._count = None
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )  # a deadlock becomes an error
    try:
        plans, labels = make_plans(), dataset_json("ignore")
        trainer = get_trainer("nnUNetTrainerNACL")(plans, "2d", 0, labels, torch.device("cpu"))
        trainer.device, trainer.grad_scaler = torch.device("cpu"), None
        torch.manual_seed(rank)
        start(trainer)
        np.savez(f"{folder}/rank_{rank}.npz", **trainer.network.module.state_dict())
        dist.barrier()  # a rank that leaves first would cut the other's connection
        del trainer.network  # before the process group
    finally:
        dist.destroy_process_group()


def test_the_first_rank_counts_for_both(tmp_path: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "preprocessed" / DATASET / "nnUNetPlans_2d").mkdir(parents=True)
    voxels = write_segmentations(tmp_path, "ignore")
    mp.start_processes(one_rank, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    first, second = (np.load(tmp_path / f"rank_{rank}.npz") for rank in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    counts = np.bincount(np.maximum(voxels, 0))[:3]
    np.testing.assert_allclose(first["decoder.seg_layers.2.bias"], np.log(counts / counts.max()), rtol=1e-6)
