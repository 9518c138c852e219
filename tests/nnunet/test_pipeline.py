"""Cases on their way through three steps: few in hand, and killed processes that cost one case."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path

import pytest

from nnunet_nacl.nnunet import pipeline as module
from nnunet_nacl.nnunet.pipeline import side_by_side, through
from nnunet_nacl.nnunet.trust import TRUSTED
from nnunet_nacl.utilities.errors import Failed, UserError
from tests.processes import is_alive, run_warm


@dataclass(frozen=True)
class Case:
    number: int

    @property
    def path(self) -> Path:
        return Path(f"case_{self.number}.nii.gz")


CASES = [Case(number) for number in range(6)]
PATH = attrgetter("path")


def pipeline(cases, read, predict, export, *, readers: int, exporters: int):
    """Three steps, as networks' cases go through them."""
    prepared = through(read, ((case, None) for case in cases), readers, PATH)
    return through(export, through(predict, prepared, 0, PATH), exporters, PATH)


def read(case: Case, nothing: None = None) -> int:
    return 10 * case.number


def predict(case: Case, value: int) -> int:
    if case.number == 4:
        raise UserError("the network says no.")
    return value + 1


def predict_all(case: Case, value: int) -> int:
    return value


def export(case: Case, value: int) -> tuple[int, bool]:
    return value, TRUSTED.get()


def die(case: Case, value: int | None = None) -> int:
    if case.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(case) if value is None else value


def die_while_answering(case: Case, value: int | None = None) -> int:
    """As the system may kill a process whose result needs more memory than there is."""

    def send_half(self: Connection, message) -> None:
        os.write(self.fileno(), bytes(message)[: len(message) // 2])
        os._exit(1)

    if case.number == 3:
        Connection._send = send_half
    return read(case) if value is None else value


def outcomes(*steps, **processes) -> dict[int, object]:
    options = {"readers": 2, "exporters": 2} | processes
    return {case.number: outcome for case, outcome in pipeline(CASES, *steps, **options)}


@pytest.mark.parametrize("readers, exporters", [(0, 0), (1, 0), (2, 2)])
def test_each_case_goes_through_all_steps_or_is_said_to_fail(readers, exporters) -> None:
    token = TRUSTED.set(True)
    try:
        found = outcomes(read, predict, export, readers=readers, exporters=exporters)
    finally:
        TRUSTED.reset(token)
    assert found.pop(4).reason == "the network says no."
    assert found == {i: (10 * i + 1, True) for i in range(6) if i != 4}


@pytest.mark.parametrize("how", [die, die_while_answering])
@pytest.mark.parametrize("at", ["read", "exported"])
def test_a_killed_process_costs_only_its_case(monkeypatch, how, at) -> None:
    if how is die:
        monkeypatch.setattr(module, "CONTEXT", get_context("spawn"))  # as for users
    steps = (how, predict_all, predict_all) if at == "read" else (read, predict_all, how)
    found = outcomes(*steps, exporters=2 * (at != "read"))
    assert found.pop(3).reason.startswith("case_3.nii.gz: the process that worked on it was killed")
    assert found == {i: 10 * i for i in range(6) if i != 3}


def test_a_case_is_taken_only_when_there_is_room_for_it() -> None:
    taken = 0
    done = 0
    most = 0

    def cases():
        nonlocal taken, most
        for case in map(Case, range(20, 50)):
            taken += 1
            most = max(most, taken - done)
            yield case

    for _ in pipeline(cases(), read, predict_all, export, readers=2, exporters=2):
        done += 1
    # in hand, waiting, at the network, and the one that is taken
    assert done == 30 and most <= 2 + 1 + 1 + 2 + 1 + 1


def be_killed(folder: Path) -> None:
    def predict(case: Case, value: int) -> int:
        if case.number == 3:
            (folder / "workers").write_text(" ".join(str(child.pid) for child in active_children()))
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    for _ in pipeline(CASES, read, predict, export, readers=1, exporters=1):
        pass


def test_workers_end_when_the_process_of_the_network_is_killed(tmp_path) -> None:
    assert run_warm(be_killed, tmp_path, folder=tmp_path).returncode == -signal.SIGKILL
    workers = [int(number) for number in (tmp_path / "workers").read_text().split()]
    assert len(workers) == 2
    while any(map(is_alive, workers)):  # the time limit of tests is the limit
        pass


def square(case: Case, nothing: None) -> tuple[int, bool]:
    if case.number == 2:
        raise KeyError("a key")
    return case.number**2, TRUSTED.get()


def test_side_by_side_a_broken_case_costs_only_itself() -> None:
    token = TRUSTED.set(True)
    try:
        found = [dict(side_by_side(square, CASES, processes, PATH)) for processes in (1, 2)]
    finally:
        TRUSTED.reset(token)
    expected = {case: (case.number**2, True) for case in CASES}
    failed = Failed(CASES[2], "case_2.nii.gz: unexpected KeyError: 'a key'")
    assert found == [expected | {CASES[2]: failed}] * 2
