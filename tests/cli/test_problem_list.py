"""What is wrong with single cases, at the end of a command."""

from __future__ import annotations

from nnunet_nacl.cli.problem_list import report_problems


def test_what_is_wrong_in_the_same_way_is_said_three_times_and_every_case_is_named(capsys):
    problems = {f"case_{i:02}": f"preds/case_{i:02}.npz is missing; predict again." for i in range(9)}
    report_problems("evaluate", problems | {"odd": "odd.npz: holds NaN."}, "could not be evaluated")
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "nnunet_nacl evaluate: 10 could not be evaluated:" and len(lines) == 7
    assert lines[2] == "  case_00: preds/case_00.npz is missing; predict again."
    assert lines[5] == "  and 6 more in the same way: case_03, case_04, case_05, case_06, case_07, case_08"
    assert lines[6] == "  odd: odd.npz: holds NaN."
