"""Cases side by side: a broken one costs only itself, a killed worker the run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.trust import TRUSTED
from nnunet_nacl.runs.side_by_side import each_case


@dataclass(frozen=True)
class Case:
    number: int

    @property
    def case(self) -> str:
        return str(self.number)

    @property
    def path(self) -> Path:
        return Path(f"case_{self.number}.npz")


CASES = [Case(number) for number in range(4)]


def square(case: Case) -> tuple[int, bool]:
    if case.number == 2:
        raise KeyError("a key")
    return case.number**2, TRUSTED.get()


def die(case: Case) -> int:
    if case.number == 2:
        os._exit(9)
    return case.number


def test_a_broken_case_costs_only_itself_and_a_killed_worker_is_one_line() -> None:
    token = TRUSTED.set(True)
    try:
        found = [dict(each_case(square, CASES, processes)) for processes in (1, 2)]
    finally:
        TRUSTED.reset(token)
    expected = {case: (case.number**2, True) for case in CASES}
    assert found == [expected | {CASES[2]: "case_2.npz: unexpected KeyError: 'a key'"}] * 2
    with pytest.raises(UserError, match="a worker process was killed.*smaller -np.*kept.$"):
        dict(each_case(die, CASES, 2))
    left = each_case(square, CASES, 2)
    next(left)
    left.close()  # without a warning, which is an error in tests
