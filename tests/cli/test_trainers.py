"""`nnunet_nacl trainers`."""

from __future__ import annotations

import re

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.methods import METHODS, NAMED_TRAINERS
from nnunet_nacl.training.grammar import grammar
from nnunet_nacl.training.variants import TOKENS


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: str) -> str:
        assert main(["trainers", *arguments]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run


def test_the_overview_has_every_name_with_its_meaning_in_lines_of_a_screen(printed) -> None:
    overview = printed()
    assert [name for name in NAMED_TRAINERS if not re.search(rf"{name}\b", overview)] == []
    assert all(method.meaning in overview and method.formula in overview for method in METHODS.values())
    assert grammar() in overview and "nnUNetTrainerDiceCE_<token>" in overview
    assert max(map(len, overview.splitlines())) <= 160


@pytest.mark.parametrize("name", NAMED_TRAINERS)
def test_each_name_is_explained_with_the_command_that_trains_it(printed, name: str) -> None:
    explained = printed(name)
    method = name.removeprefix("nnUNetTrainer").removeprefix("Dice")
    assert METHODS[method].meaning in explained
    assert f"-tr {name} " in explained
    assert ("soft Dice term" in explained) == ("Dice" in name)
    assert re.findall("^  (anneal|plainstart) ", explained, re.MULTILINE) == [
        "anneal" if "Dice" in name else "plainstart"
    ]
    for token in TOKENS:
        if token.methods and token.fits(method):
            assert token.form in explained


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "nnUNetTrainerNACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam",
            [
                r"lambda<x> +0\.2",
                r"k<n> +5",
                r"gaussian\|svls +gaussian",
                r"sigma<x> +2",
                r"l2 +yes",
                r"<n>epochs +100",
                r"adam +yes",
                r"<n>iters +250 .*\(default\)",
                r"m<x> +1 .*\(default\)",
            ],
        ),
        ("nnUNetTrainerDiceNACL_anneal", [r"anneal +yes", r"falling weight", r"\+ Dice"]),
        ("nnUNetTrainerCE_train12p5_noda_seed3", [r"train<x> +12\.5", r"noda +yes", r"seed<n> +3"]),
        ("nnUNetTrainer", [r"nnU-Net's own trainer", r"nnUNetTrainerDiceCE_<token>"]),
    ],
)
def test_a_name_is_explained(printed, name: str, told: list[str]) -> None:
    explained = printed(name)
    for pattern in told:
        assert re.search(pattern, explained), pattern


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nnUNetTrainerNALC", "did you mean nnUNetTrainerNACL?"),
        ("nnUNetTrainer_250epochs", "nnUNetTrainer_250epochs is none of these trainers"),
    ],
)
def test_a_name_of_nobody_is_refused(capsys, name: str, said: str) -> None:
    assert main(["trainers", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("nnunet_nacl trainers: error: ") and said in captured.err
