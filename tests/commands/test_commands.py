"""The function of each command: what its help says, and in which words its errors speak."""

from __future__ import annotations

import importlib
import inspect
import logging
from pathlib import Path

import pytest

import nnunet_nacl
from nnunet_nacl.cli.main import main
from nnunet_nacl.errors import UserError

COMMANDS = ("evaluate", "compare", "calibrate", "predict", "review")


@pytest.mark.parametrize("name", COMMANDS)
def test_its_help_names_every_argument_and_what_it_returns(name: str) -> None:
    function = getattr(nnunet_nacl, name)
    assert function is getattr(importlib.import_module(f"nnunet_nacl.commands.{name}"), name)
    text = inspect.getdoc(function) or ""
    arguments = text.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    unnamed = [
        each for each in inspect.signature(function).parameters if f"    {each}: " not in arguments
    ]
    assert not unnamed
    assert "\nRaises:\n" in text and "\nExamples:\n" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_what_it_returns_documents_its_fields(name: str) -> None:
    module = importlib.import_module(f"nnunet_nacl.commands.{name}")
    returned = getattr(module, inspect.signature(getattr(nnunet_nacl, name)).return_annotation)
    fields = inspect.getdoc(returned).partition("\nAttributes:\n")[2]
    assert not [field for field in returned.__dataclass_fields__ if f"    {field}: " not in fields]
    public = [
        value
        for key, value in vars(returned).items()
        if not key.startswith("_") and key != "output"
    ]
    assert all(inspect.getdoc(each) for each in public)


def test_errors_name_arguments_in_python_and_options_on_a_command_line(
    tmp_path: Path, capsys
) -> None:
    with pytest.raises(
        UserError, match=f"^{tmp_path}: no dataset.json .* give it with dataset_json.$"
    ):
        nnunet_nacl.evaluate(tmp_path, tmp_path)
    assert main(["evaluate", "-i", str(tmp_path), "-gt", str(tmp_path)]) == 2
    assert "give it with -djfile." in capsys.readouterr().err


def test_nothing_is_printed_but_logged(make_validated, capfd, caplog) -> None:
    model = make_validated(cases=6, sharpness=2.0)
    with caplog.at_level(logging.INFO, "nnunet_nacl"):
        nnunet_nacl.evaluate(model.validation(), model.references)
        nnunet_nacl.calibrate(
            predictions=model.validation(), labels=model.references, form="temperature"
        )
    assert capfd.readouterr().out == ""
    assert f"{model.validation()} is taken for a folder of predictions" in caplog.text
