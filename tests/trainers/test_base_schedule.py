"""The learning rate is a function of the epoch."""

from __future__ import annotations

import pytest
import torch

from nnunet_nacl_trainers.base import HalfwayDecay


def schedule(num_epochs: int) -> HalfwayDecay:
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    return HalfwayDecay(optimizer, 1e-3, num_epochs)


def rate_at(scheduler: HalfwayDecay, epoch: int) -> float:
    scheduler.step(epoch)
    (group,) = scheduler.optimizer.param_groups
    assert scheduler.get_last_lr() == [group["lr"]]
    return group["lr"]


@pytest.mark.parametrize(("num_epochs", "first_low"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (1000, 500)])
def test_it_falls_to_a_tenth_at_half_of_the_training(num_epochs: int, first_low: int) -> None:
    scheduler = schedule(num_epochs)
    rates = [rate_at(scheduler, epoch) for epoch in range(num_epochs)]
    assert rates == pytest.approx([1e-3] * first_low + [1e-4] * (num_epochs - first_low))


def test_it_depends_on_no_history() -> None:
    scheduler = schedule(10)
    assert [rate_at(scheduler, epoch) for epoch in (7, 2, 5, 4)] == pytest.approx([1e-4, 1e-3, 1e-4, 1e-3])
    assert rate_at(schedule(10), 7) == pytest.approx(1e-4)


def test_before_the_first_epoch_and_without_a_number_it_counts() -> None:
    scheduler = schedule(4)
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(3):
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4])
