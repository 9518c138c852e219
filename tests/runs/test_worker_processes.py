"""Work that streams through processes: few items in hand, dead workers survived."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess

import pytest

from nnunet_nacl.io.checkpoint_files import TRUSTED
from nnunet_nacl.runs import worker_processes
from nnunet_nacl.runs.worker_processes import guarded, stream_through_workers
from tests.processes import is_alive


def square_or_die(item: int) -> int:
    if item == 3:
        os._exit(1)
    return item * item


def die_while_answering(item: int) -> int:
    """As the system may kill a process whose result needs more memory than there is."""

    def send_half(self: Connection, message) -> None:
        os.write(self.fileno(), bytes(message)[: len(message) // 2])
        os._exit(1)

    if item == 3:
        Connection._send = send_half
    return item


def is_trusted(item: int) -> bool:
    return TRUSTED.get()


class TooLarge:
    """Cannot be unpickled, as what there is no memory for."""

    def __reduce__(self) -> tuple:
        return _no_memory, ()


def _no_memory() -> None:
    raise MemoryError


def make_too_large(item: object) -> object:
    return TooLarge() if item == 3 else item


def wait_for_ever(item: int) -> int:
    time.sleep(1000 * item)
    return os.getpid()


@pytest.mark.parametrize("processes", [0, 2])
def test_items_are_made_only_when_there_is_room(processes, monkeypatch) -> None:
    monkeypatch.setattr(worker_processes, "CONTEXT", get_context("spawn"))  # as for users
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


def test_workers_trust_what_the_user_trusts() -> None:
    assert dict(stream_through_workers(is_trusted, range(2), 1)) == {0: False, 1: False}
    token = TRUSTED.set(True)
    try:
        assert dict(stream_through_workers(is_trusted, range(2), 1)) == {0: True, 1: True}
    finally:
        TRUSTED.reset(token)


def test_a_worker_that_dies_takes_only_its_item_with_it() -> None:
    found = dict(stream_through_workers(square_or_die, range(8), 2, ahead=1))
    assert found == {number: None if number == 3 else number * number for number in range(8)}


def test_half_a_result_holds_nothing_up() -> None:
    found = dict(stream_through_workers(die_while_answering, range(6), processes=2))
    assert found == {**{i: i for i in range(6)}, 3: None}


@pytest.mark.parametrize("item", [3, TooLarge()])
def test_what_cannot_be_received_costs_only_its_item(item) -> None:
    found = dict(stream_through_workers(make_too_large, [0, 1, item, 4, 5], 2))
    assert found == {0: 0, 1: 1, item: None, 4: 4, 5: 5}


def test_idle_workers_that_die_cost_nothing() -> None:
    def items():
        yield from (5, 6)
        for worker in active_children():
            worker.kill()
            worker.join()
        yield 7

    assert dict(stream_through_workers(square_or_die, items(), 2, ahead=0)) == {5: 25, 6: 36, 7: 49}


def test_ctrl_c_while_workers_start_is_not_for_them(monkeypatch) -> None:
    """A terminal sends it to all processes."""
    monkeypatch.setattr(worker_processes, "CONTEXT", get_context("spawn"))  # as for users
    monkeypatch.setattr(SpawnProcess, "start", lambda self: (BaseProcess.start(self), os.kill(self.pid, signal.SIGINT)))
    assert dict(stream_through_workers(str, [1], 1)) == {1: "1"}


def test_streams_can_be_left_and_their_workers_end() -> None:
    stream = stream_through_workers(wait_for_ever, [0, 1, 1, 1], 2, ahead=1)
    (item, worker) = next(stream)
    assert item == 0 and is_alive(worker)
    stream.close()
    assert not is_alive(worker) and not active_children()


def test_what_the_system_refuses_is_named_by_its_own_path(tmp_path) -> None:
    problem = guarded(tmp_path / "case.npz", (tmp_path / "labels.nii").read_bytes)
    assert problem == f"{tmp_path / 'labels.nii'}: No such file or directory; correct the path."


def test_no_memory_for_a_case_whose_file_is_gone_is_a_problem_of_the_case(tmp_path) -> None:
    problem = guarded(tmp_path / "gone.npz", _no_memory)
    assert problem == f"{tmp_path / 'gone.npz'}: not enough memory; run with a smaller -np."
