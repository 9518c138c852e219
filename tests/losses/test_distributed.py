"""Two processes on half the batch each give the gradients of one process on all of it.

Equal halves and nothing ignored: with ignored voxels each rank takes the mean over its own, as nnU-Net's CE does.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.losses.cases import CASES, CONFIGURED, CONFIGURED_IDS, problem

JOBS = [(name, settings, space) for name, settings in CONFIGURED for space in ("classes", "regions")]
JOB_IDS = [f"{name}-{space}" for name in CONFIGURED_IDS for space in ("classes", "regions")]


def make_network():
    torch.manual_seed(0)
    return torch.nn.Conv2d(3, 3, 3, padding=1).double()


def gradients_of(network, job, part=slice(None)):
    name, settings, space = job
    image, target, where = problem(space, (6, 5), seed=51, batch=4)
    loss = CASES[name].module(**settings, **where)
    network.zero_grad()
    loss(network(image[part]), target[part]).backward()
    return {key: value.grad.clone() for key, value in network.named_parameters()}


def one_rank(rank, rendezvous, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    try:
        gradients = []
        for job in JOBS:
            network = torch.nn.parallel.DistributedDataParallel(make_network())
            gradients.append(gradients_of(network, job, slice(2 * rank, 2 * rank + 2)))
        torch.save(gradients, f"{results}/{rank}.pt")
        dist.barrier()  # a rank that leaves first would cut the other's connection
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_both_ranks(tmp_path_factory):
    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this torch has no gloo")
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(one_rank, args=(folder / "rendezvous", folder), nprocs=2, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("number", range(len(JOBS)), ids=JOB_IDS)
def test_gradients_are_those_of_one_process(number, of_both_ranks):
    expected = gradients_of(make_network(), JOBS[number])
    for rank in of_both_ranks:
        for key, gradient in rank[number].items():
            torch.testing.assert_close(gradient, expected[key.removeprefix("module.")], rtol=1e-6, atol=1e-9)


def test_half_the_batch_alone_has_other_gradients():
    """So that the test above would notice a missing reduction."""
    for job in JOBS:
        alone, whole = gradients_of(make_network(), job, slice(0, 2)), gradients_of(make_network(), job)
        assert not torch.allclose(alone["weight"], whole["weight"], rtol=1e-3)
