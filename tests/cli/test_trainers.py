"""`nnunet_nacl trainers`."""

from __future__ import annotations

import re

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.methods import METHODS, NAMED_TRAINERS
from nnunet_nacl.registration.grammar import TOKENS


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> str:
        assert main(["trainers", *arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


def test_the_overview_has_every_name_with_its_meaning(printed) -> None:
    overview = printed()
    assert [name for name in NAMED_TRAINERS if not re.search(rf"{name}\b", overview)] == []
    assert all(method.meaning in overview and method.formula in overview for method in METHODS.values())
    assert "nnUNetTrainerDiceCE_<token>" in printed("nnUNetTrainer")
    explained = printed("nnUNetTrainerDiceNACL_lambda0p2_100epochs")
    for pattern in (r"lambda<x> +0\.2", r"<n>epochs +100", r"<n>iters +250 .*\(default\)", r"k<n> +- .*\(not set\)"):
        assert re.search(pattern, explained), pattern


@pytest.mark.parametrize("name", NAMED_TRAINERS)
def test_each_name_is_explained_with_the_command_that_trains_it(printed, name: str) -> None:
    explained = printed(name)
    method = name.removeprefix("nnUNetTrainer").removeprefix("Dice")
    assert METHODS[method].meaning in explained and explained.endswith(f"-tr {name}\n")
    assert ("soft Dice term" in explained) == ("Dice" in name)
    forms = re.findall(r"^  (\S+) ", explained, re.MULTILINE)
    assert all((token.form in forms) == token.fits(method, "Dice" in name) for token in TOKENS)
