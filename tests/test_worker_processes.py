"""Work that streams through processes: few items in hand, dead workers survived."""

from __future__ import annotations

import os
import time

import pytest

from nnunet_nacl.worker_processes import stream_through_workers
from tests.processes import children, is_alive


def square_or_die(item: int) -> int:
    if item == 3:
        os._exit(1)
    return item * item


def wait_for_ever(item: int) -> int:
    time.sleep(1000 * item)
    return os.getpid()


@pytest.mark.parametrize("processes", [0, 2])
def test_items_are_made_only_when_there_is_room(processes) -> None:
    made, done, most = 0, 0, 0

    def items():
        nonlocal made, most
        for number in range(20, 40):
            made += 1
            most = max(most, made - done)
            yield number

    found = {}
    for number, result in stream_through_workers(square_or_die, items(), processes, ahead=1):
        done += 1
        found[number] = result
    assert found == {number: number * number for number in range(20, 40)}
    assert most <= processes + 2  # those in hand, and the one that is being made


def test_a_worker_that_dies_takes_only_its_item_with_it() -> None:
    found = dict(stream_through_workers(square_or_die, range(8), 2, ahead=1))
    assert found == {number: None if number == 3 else number * number for number in range(8)}


def test_streams_can_be_left_and_their_workers_end() -> None:
    before = set(children(os.getpid()))
    stream = stream_through_workers(wait_for_ever, [0, 1, 1, 1], 2, ahead=1)
    (item, worker) = next(stream)
    assert item == 0 and is_alive(worker)
    stream.close()
    while set(children(os.getpid())) - before - {other for other in children(os.getpid()) if not is_alive(other)}:
        time.sleep(0.01)
    assert not is_alive(worker)
