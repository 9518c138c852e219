"""`nnunet_nacl trainers`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nnunet_nacl.cli.main import main
from nnunet_nacl.methods import METHODS, NAMED_TRAINERS
from nnunet_nacl.registration.tokens import TOKENS


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
    assert all(
        method.meaning in overview and method.formula in overview for method in METHODS.values()
    )
    assert "nnUNetTrainerDiceCE_<token>" in printed("nnUNetTrainer")
    explained = printed("nnUNetTrainerDiceNACL_lambda0p2_100epochs")
    for pattern in (
        r"lambda<x> +0\.2",
        r"<n>epochs +100",
        r"<n>iters +250 .*\(default\)",
        r"k<n> +- .*\(not set\)",
    ):
        assert re.search(pattern, explained), pattern


@pytest.mark.parametrize("name", NAMED_TRAINERS)
def test_each_name_is_explained_with_the_command_that_trains_it(printed, name: str) -> None:
    explained = printed(name)
    method = name.removeprefix("nnUNetTrainer").removeprefix("Dice")
    assert METHODS[method].meaning in explained and explained.endswith(f"-tr {name}\n")
    assert ("soft Dice term" in explained) == ("Dice" in name)
    forms = re.findall(r"^  (\S+) ", explained, re.MULTILINE)
    assert all((token.form in forms) == token.fits(method, "Dice" in name) for token in TOKENS)


def test_the_list_and_an_explanation_name_the_file_of_the_class(printed) -> None:
    for text in (
        printed(),
        printed("nnUNetTrainerNACL"),
        printed("nnUNetTrainerDiceNACL_lambda0p2"),
    ):
        (file,) = set(re.findall(r"\S+nacl\.py", text))
        assert "class nnUNetTrainerNACL(" in Path(file).read_text(encoding="utf-8")


def test_classes_of_nnunet_and_of_the_user_are_named_with_their_files(
    printed, tmp_path, monkeypatch
) -> None:
    assert "nnU-Net's own trainer, in " in printed("nnUNetTrainer_100epochs")
    for name in ("nnUNetTrainerNACL_ours", "nnUNetTrainerMine"):
        (tmp_path / f"{name}.py").write_text(f"import nothing_that_is_there\nclass {name}: pass\n")
        monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
        assert f"a class in {tmp_path / name}.py" in printed(name)


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("NACL_margin5", "; did you mean nnUNetTrainerNACL_m5?"),
        ("NALC", "; did you mean nnUNetTrainerNACL?"),
        ("Dice", "; did you mean nnUNetTrainer?"),
        ("Lovasz", "; `nnunet_nacl trainers` lists them."),
    ],
)
def test_a_mistyped_name_is_answered_in_one_line_that_ends_in_what_to_type(
    capsys, name: str, end: str
) -> None:
    assert main(["trainers", f"nnUNetTrainer{name}"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(end)
